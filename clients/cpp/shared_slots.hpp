// The server's shared memory, as this client sees it: the map, and which slots are free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "monocoque/v1/stream.pb.h"

namespace monocoque {

// A descriptor that closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor();
  int get() const { return value_; }

 private:
  int value_;
};

// Memory that unmaps itself.
class Mapping {
 public:
  // Throws Error.
  Mapping(const FileDescriptor& file, std::size_t size_bytes);
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

// The slots of one stream. Not synchronized.
class SharedSlots {
 public:
  // Slots of a camera that stay on this side: one whose frame waits to be sent, one that is being written.
  static constexpr std::uint32_t kClientSlots = 2;

  // Fetches and maps the memory. Throws Error.
  explicit SharedSlots(const v1::SharedMemory& granted);

  // A free slot of a camera, marked as being written; none where all are taken.
  std::optional<std::uint32_t> begin(const std::string& camera_id);
  std::span<std::byte> pixels(std::uint32_t slot) const;
  // The pixels are there: what to send.
  v1::SlotHandle finish(std::uint32_t slot, std::size_t size_bytes);
  void give_back(std::uint32_t slot);
  // Frames of a camera that the server may have at once.
  std::uint32_t most_in_flight(const std::string& camera_id) const;

 private:
  struct Place {
    std::string camera_id;
    std::span<std::byte> pixels;
    std::uint64_t generation = 0;
  };

  void publish(std::uint32_t slot);

  Mapping mapping_;
  std::vector<Place> places_;
  std::map<std::string, std::vector<std::uint32_t>> free_;
  std::map<std::string, std::uint32_t> slots_;
};

}  // namespace monocoque

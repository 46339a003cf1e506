// Streams camera frames to a Monocoque server, by gRPC or through memory that the server shares.
//
//   monocoque::Camera camera;
//   camera.set_id("front"); camera.set_width(640); camera.set_height(384);
//   camera.set_encoding(monocoque::v1::ENCODING_RGB8);
//   monocoque::Stream stream({.address = "127.0.0.1:8001", .shared_memory = true}, {camera});
//   monocoque::Slot slot = stream.slot("front");
//   const std::size_t size_bytes = read_camera_into(slot.pixels());
//   std::move(slot).submit(size_bytes);
//   while (auto result = stream.next()) { ... }
//
// A frame that cannot be sent yet is replaced by the next one of its camera, and counted: what is sent is always the
// freshest. Messages are those of protos/monocoque/v1; pixel bytes are never copied by protobuf.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "monocoque/v1/stream.pb.h"

namespace monocoque {

using Camera = v1::Camera;

// What happened, with the values seen, and what to do next.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// CLOCK_MONOTONIC in nanoseconds: the clock of every time in this file.
std::int64_t now_ns();

struct Options {
  std::string address = "127.0.0.1:8001";
  // Through memory that the server shares: for a server on this host, running as this user.
  bool shared_memory = false;
  // Age at which an answer is of no use any more; 0: none.
  std::uint64_t max_age_ns = 0;
  // Dense outputs to answer beside detections.
  std::vector<std::string> tensors = {};
};

// The answer to one frame.
struct Result {
  v1::Result message;
  // From the frame's hand-over to this client's receipt of the answer. Covers the ledger's stages and the way back.
  std::int64_t end_to_end_ns = 0;
};

// Frames of one camera so far.
struct Counts {
  std::uint64_t submitted = 0;
  // Replaced by a newer one before the server had room.
  std::uint64_t client_dropped = 0;
  std::uint64_t sent = 0;
  std::uint64_t answered = 0;
};

class Slot;

// One stream of the freshest frames of some cameras. Any thread may submit, another may wait for results.
class Stream {
 public:
  // Opens it. Throws Error.
  Stream(const Options& options, std::vector<Camera> cameras);
  // Ends it at once; what is in flight stays without an answer.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // What the server granted.
  const v1::Opened& opened() const;

  // Submit a frame by bytes, which are moved and not copied; with shared memory, they are copied to a slot, once.
  //
  // capture_time_ns: when the shutter opened, 0: now. Returns the frame's sequence. Throws Error.
  std::uint64_t submit(const std::string& camera_id, std::string pixels, std::int64_t capture_time_ns = 0);

  // A free slot to write a frame to. One frame at a time per camera. Throws Error.
  Slot slot(const std::string& camera_id);

  // Send no more; `next` ends once every frame has its answer. What waits unsent is given up.
  void finish();

  // The next result, in the order of arrival; none after `finish` and the last answer. Throws Error where the stream
  // broke.
  std::optional<Result> next();

  // By camera.
  std::map<std::string, Counts> counts() const;

 private:
  friend class Slot;
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

// A place in shared memory for one frame, made by Stream::slot. Given back unsent unless `submit` is called. It must
// not outlive its stream.
class Slot {
 public:
  Slot(Slot&& other) noexcept
      : stream_(std::exchange(other.stream_, nullptr)),
        camera_id_(std::move(other.camera_id_)),
        number_(other.number_),
        pixels_(other.pixels_) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  Slot& operator=(Slot&&) = delete;
  ~Slot();

  // Where to write. As large as the largest frame of this camera.
  std::span<std::byte> pixels() const { return pixels_; }

  // Hand the frame over; the slot is the server's until the frame's answer.
  //
  // size_bytes: bytes written; capture_time_ns: when the shutter opened, 0: now. Returns the frame's sequence.
  std::uint64_t submit(std::size_t size_bytes, std::int64_t capture_time_ns = 0) &&;

 private:
  friend class Stream::Implementation;
  Slot(Stream::Implementation& stream, std::string camera_id, std::uint32_t number, std::span<std::byte> pixels)
      : stream_(&stream), camera_id_(std::move(camera_id)), number_(number), pixels_(pixels) {}

  Stream::Implementation* stream_;
  std::string camera_id_;
  std::uint32_t number_;
  std::span<std::byte> pixels_;
};

}  // namespace monocoque

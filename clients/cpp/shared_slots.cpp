#include "shared_slots.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "monocoque_client.hpp"

namespace monocoque {
namespace {

constexpr std::size_t kGenerationStrideBytes = 64;
constexpr timeval kPatience = {.tv_sec = 5, .tv_usec = 0};

std::string last_error() { return std::strerror(errno); }

Error unreachable(const std::string& path, const std::string& what) {
  return Error("the server hands out shared memory at " + path + ", which this process does not reach: " + what +
               "\n  -> shared memory is for clients on the server's host; elsewhere, stream without it");
}

// The descriptor of the region: unix(7), SCM_RIGHTS.
FileDescriptor fetch(const v1::SharedMemory& granted) {
  const std::string& path = granted.socket();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) throw unreachable(path, "no path of a socket");
  std::ranges::copy(path, address.sun_path);
  if (path.front() == '@') address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path.front() != '@'));

  const FileDescriptor connection(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      send(connection.get(), granted.token().data(), granted.token().size(), MSG_NOSIGNAL) < 0) {
    throw unreachable(path, last_error());
  }
  std::array<char, 1024> said{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec vector{.iov_base = said.data(), .iov_len = said.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t received = recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC);
  if (received < 0) throw unreachable(path, last_error());
  const cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights == nullptr || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) {
    throw Error("the server refuses shared memory: " + std::string(said.data(), static_cast<std::size_t>(received)) +
                "\n  -> run this client as the server's user, or stream without it");
  }
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(rights), sizeof(descriptor));
  FileDescriptor region(descriptor);
  // Without these two, whoever owns the memory could kill this process by making it shorter.
  struct stat status{};
  const int seals = fcntl(region.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(region.get(), &status) != 0 ||
      static_cast<std::uint64_t>(status.st_size) < granted.region_bytes()) {
    throw Error("the shared memory at " + path + " is not sealed, or shorter than the server says");
  }
  return region;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (value_ >= 0) close(value_);
}

Mapping::Mapping(const FileDescriptor& file, std::size_t size_bytes) {
  // MAP_POPULATE: else the first frames pay a page fault every 4096 bytes.
  void* address = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (address == MAP_FAILED) {
    throw Error(std::to_string(size_bytes) + " bytes of shared memory cannot be mapped: " + last_error());
  }
  bytes_ = {static_cast<std::byte*>(address), size_bytes};
}

Mapping::~Mapping() { munmap(bytes_.data(), bytes_.size()); }

SharedSlots::SharedSlots(const v1::SharedMemory& granted) : mapping_(fetch(granted), granted.region_bytes()) {
  const std::span<std::byte> region = mapping_.bytes();
  for (const v1::CameraSlots& camera : granted.cameras()) {
    const std::uint64_t end = camera.offset_bytes() + camera.slots() * camera.slot_bytes();
    const std::uint64_t last = camera.first_slot() + std::uint64_t{camera.slots()};
    if (end > region.size() || last * kGenerationStrideBytes > region.size()) {
      throw Error("slots of camera " + camera.camera_id() + " reach to byte " + std::to_string(end) +
                  " of a region of " + std::to_string(region.size()));
    }
    slots_[camera.camera_id()] = camera.slots();
    places_.resize(std::max<std::size_t>(places_.size(), last));
    for (std::uint32_t position = 0; position < camera.slots(); ++position) {
      const std::uint32_t number = camera.first_slot() + position;
      places_[number] = {camera.camera_id(),
                         region.subspan(camera.offset_bytes() + position * camera.slot_bytes(), camera.slot_bytes())};
      free_[camera.camera_id()].push_back(number);
    }
  }
}

std::optional<std::uint32_t> SharedSlots::begin(const std::string& camera_id) {
  std::vector<std::uint32_t>& free = free_.at(camera_id);
  if (free.empty()) return std::nullopt;
  const std::uint32_t slot = free.back();  // the one that came back last: much of it is still in the processor's cache
  free.pop_back();
  ++places_[slot].generation;  // odd: being written
  publish(slot);
  std::atomic_thread_fence(std::memory_order_release);  // no pixel becomes visible before
  ++places_[slot].generation;
  return slot;
}

std::span<std::byte> SharedSlots::pixels(std::uint32_t slot) const { return places_[slot].pixels; }

v1::SlotHandle SharedSlots::finish(std::uint32_t slot, std::size_t size_bytes) {
  publish(slot);
  v1::SlotHandle handle;
  handle.set_slot(slot);
  handle.set_generation(places_[slot].generation);
  handle.set_size_bytes(size_bytes);
  return handle;
}

void SharedSlots::give_back(std::uint32_t slot) { free_.at(places_[slot].camera_id).push_back(slot); }

std::uint32_t SharedSlots::most_in_flight(const std::string& camera_id) const {
  return slots_.at(camera_id) - kClientSlots;
}

void SharedSlots::publish(std::uint32_t slot) {
  std::byte* word = mapping_.bytes().data() + slot * kGenerationStrideBytes;
  std::atomic_ref(*reinterpret_cast<std::uint64_t*>(word)).store(places_[slot].generation, std::memory_order_release);
}

}  // namespace monocoque

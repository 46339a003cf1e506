#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>

#include "monocoque_client.hpp"
#include "shared_slots.hpp"

namespace monocoque {
namespace {

// Results that wait to be read; beyond it, the oldest is forgotten.
constexpr std::size_t kMaxUnread = 10'000;
// A server that vanished without closing, behind a pulled cable, is noticed within twice this.
constexpr int kKeepaliveMs = 10'000;
constexpr char kMethod[] = "/monocoque.v1.CameraStreamService/StreamFrames";

enum class Event : std::intptr_t { kStarted = 1, kRead, kWritten, kDone, kFinished };

void* tag(Event event) { return reinterpret_cast<void*>(event); }

// Part of a frame's bytes, which gRPC sends from where they are; they are freed with the last part.
grpc::Slice part_of(const std::shared_ptr<const std::string>& bytes, std::size_t start, std::size_t size) {
  using Owner = std::shared_ptr<const std::string>;
  auto owner = std::make_unique<Owner>(bytes);
  char* data = const_cast<char*>(bytes->data()) + start;  // a slice's constructor knows no const; nobody writes
  return grpc::Slice(data, size, [](void* held) { std::unique_ptr<Owner>(static_cast<Owner*>(held)); },
                     owner.release());
}

grpc::ByteBuffer message_of(const v1::StreamFramesRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// A message whose pixels follow the header as its last field, untouched.
// https://protobuf.dev/programming-guides/encoding/
grpc::ByteBuffer join(const v1::StreamFramesRequest& request, const grpc::Slice& pixels) {
  std::string head = request.SerializeAsString();
  head.push_back(static_cast<char>(v1::StreamFramesRequest::kPixelsFieldNumber << 3 | 2));
  std::size_t length = pixels.size();
  for (; length > 0x7f; length >>= 7) head.push_back(static_cast<char>((length & 0x7f) | 0x80));
  head.push_back(static_cast<char>(length));
  const std::array slices = {grpc::Slice(head), pixels};
  return grpc::ByteBuffer(slices.data(), slices.size());
}

v1::StreamFramesResponse parse(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  v1::StreamFramesResponse response;
  std::string bytes;
  if (message.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (!response.ParseFromString(bytes)) {
    throw Error("a message of " + std::to_string(bytes.size()) + " bytes is no StreamFramesResponse");
  }
  return response;
}

// The proof that the server's monotonic clock is this one, where it is.
v1::Clock declared_clock() {
  v1::Clock clock;
  std::string boot_id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id;
  std::error_code failed;
  const auto time_namespace = std::filesystem::read_symlink("/proc/self/ns/time", failed);
  clock.set_kind(boot_id.empty() ? v1::CLOCK_KIND_UNKNOWN : v1::CLOCK_KIND_SAME_HOST_MONOTONIC);
  clock.set_boot_id(boot_id);
  clock.set_time_namespace(time_namespace.string());
  return clock;
}

}  // namespace

std::int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// One thread takes events from gRPC; at most one read and one write are under way.
class Stream::Implementation {
 public:
  Implementation(const Options& options, std::vector<Camera> cameras)
      : address_(options.address),
        stub_(grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), channel_arguments())),
        call_(stub_.PrepareCall(&context_, kMethod, &events_)) {
    v1::StreamFramesRequest request;
    v1::Open& open = *request.mutable_open();
    for (const Camera& camera : cameras) {
      *open.add_cameras() = camera;
      lanes_[camera.id()].camera = camera;
    }
    *open.mutable_clock() = declared_clock();
    open.set_max_age_ns(options.max_age_ns);
    open.set_shared_memory(options.shared_memory);
    open.set_credits_with_results(true);
    for (const std::string& name : options.tensors) open.add_tensors(name);
    handshake(message_of(request));
    for (auto& [_, lane] : lanes_) lane.credits = opened_.credits();
    if (options.shared_memory) {
      try {
        slots_.emplace(opened_.shared_memory());
      } catch (...) {
        context_.TryCancel();
        end_call();
        throw;
      }
    }
    call_->Read(&incoming_, tag(Event::kRead));
    thread_ = std::thread([this] { run(); });
  }

  ~Implementation() {
    context_.TryCancel();
    thread_.join();
  }

  const v1::Opened& opened() const { return opened_; }

  std::uint64_t submit(const std::string& camera_id, std::string pixels, std::int64_t capture_time_ns) {
    if (pixels.size() > opened_.max_frame_bytes()) {
      throw Error("a frame of " + std::to_string(pixels.size()) + " bytes, the server takes " +
                  std::to_string(opened_.max_frame_bytes()) + "\n  -> start it with a larger --max-frame");
    }
    if (slots_) {
      Slot free = begin_slot(camera_id);
      if (pixels.size() > free.pixels().size()) throw Error("a frame larger than its camera's slot");
      std::ranges::copy(std::as_bytes(std::span(pixels)), free.pixels().begin());
      return std::move(free).submit(pixels.size(), capture_time_ns);
    }
    const std::scoped_lock lock(mutex_);
    return put(camera_id, {.pixels = std::move(pixels)}, capture_time_ns);
  }

  Slot begin_slot(const std::string& camera_id) {
    const std::scoped_lock lock(mutex_);
    lane_of(camera_id);
    if (!slots_) throw Error("the stream has no shared memory: open it with Options::shared_memory");
    const std::optional<std::uint32_t> number = slots_->begin(camera_id);
    if (!number) throw Error("a frame of camera " + camera_id + " is being written; one at a time");
    return Slot(*this, camera_id, *number, slots_->pixels(*number));
  }

  std::uint64_t submit_slot(const Slot& slot, std::size_t size_bytes, std::int64_t capture_time_ns) {
    const std::scoped_lock lock(mutex_);
    return put(slot.camera_id_, {.slot = slot.number_, .size_bytes = size_bytes}, capture_time_ns);
  }

  void give_back(std::uint32_t slot) {
    const std::scoped_lock lock(mutex_);
    slots_->give_back(slot);
  }

  void finish() {
    const std::scoped_lock lock(mutex_);
    for (auto& [_, lane] : lanes_) {
      if (lane.waiting) ++lane.counts.client_dropped;
      lane.waiting.reset();
    }
    finishing_ = true;
    send_next();
  }

  std::optional<Result> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !results_.empty() || finished_; });
    if (!results_.empty()) {
      Result result = std::move(results_.front());
      results_.pop_front();
      return result;
    }
    if (!error_.empty()) throw Error(error_);
    return std::nullopt;
  }

  std::map<std::string, Counts> counts() const {
    const std::scoped_lock lock(mutex_);
    std::map<std::string, Counts> all;
    for (const auto& [id, lane] : lanes_) all[id] = lane.counts;
    return all;
  }

 private:
  // A frame that waits to be sent: by bytes, or in a slot.
  struct Outgoing {
    std::string pixels = {};
    std::optional<std::uint32_t> slot = std::nullopt;
    std::size_t size_bytes = 0;
    std::uint64_t sequence = 0;
    std::int64_t capture_time_ns = 0;
  };

  struct Lane {
    Camera camera;
    Counts counts;
    std::uint64_t credits = 0;
    std::uint32_t dropped_since_sent = 0;
    std::optional<Outgoing> waiting;
  };

  struct Sent {
    std::int64_t send_time_ns;
    std::optional<std::uint32_t> slot;
  };

  static grpc::ChannelArguments channel_arguments() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt("grpc.enable_http_proxy", 0);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    return arguments;
  }

  Lane& lane_of(const std::string& camera_id) {
    const auto found = lanes_.find(camera_id);
    if (found == lanes_.end()) throw Error("no camera '" + camera_id + "' in this stream");
    if (ended_ || finishing_) throw Error(error_.empty() ? "the stream takes no frames any more" : error_);
    return found->second;
  }

  std::uint64_t put(const std::string& camera_id, Outgoing frame, std::int64_t capture_time_ns) {
    Lane& lane = lane_of(camera_id);
    frame.sequence = lane.counts.submitted++;
    frame.capture_time_ns = capture_time_ns != 0 ? capture_time_ns : now_ns();
    if (lane.waiting) {
      if (lane.waiting->slot) slots_->give_back(*lane.waiting->slot);
      ++lane.counts.client_dropped;
      ++lane.dropped_since_sent;
    }
    const std::uint64_t sequence = frame.sequence;
    lane.waiting = std::move(frame);
    send_next();
    return sequence;
  }

  bool may_send(const Lane& lane) const {
    if (!lane.waiting || lane.credits == 0) return false;
    return !slots_ || lane.counts.sent - lane.counts.answered < slots_->most_in_flight(lane.camera.id());
  }

  // Start the next write, if there is something to send and none is under way. Cameras take turns.
  void send_next() {
    if (writing_ || ended_) return;
    if (leaving_) return send_piece({});
    for (std::size_t tried = 0; tried < lanes_.size(); ++tried) {
      auto next = lanes_.upper_bound(last_served_);
      if (next == lanes_.end()) next = lanes_.begin();
      last_served_ = next->first;
      if (may_send(next->second)) return send(next->second);
    }
    if (finishing_ && !writes_done_) {
      writing_ = writes_done_ = true;
      call_->WritesDone(tag(Event::kDone));
    }
  }

  void send(Lane& lane) {
    Outgoing frame = std::move(*lane.waiting);
    lane.waiting.reset();
    v1::StreamFramesRequest request;
    v1::FrameHeader& header = *request.mutable_frame();
    header.set_camera_id(lane.camera.id());
    header.set_sequence(frame.sequence);
    header.set_capture_time_ns(frame.capture_time_ns);
    header.set_encoding(lane.camera.encoding());
    header.set_width(lane.camera.width());
    header.set_height(lane.camera.height());
    header.set_client_dropped(std::exchange(lane.dropped_since_sent, 0));
    header.set_client_send_time_ns(now_ns());
    in_flight_[{lane.camera.id(), frame.sequence}] = {header.client_send_time_ns(), frame.slot};
    --lane.credits;
    ++lane.counts.sent;
    if (frame.slot) {
      *request.mutable_slot() = slots_->finish(*frame.slot, frame.size_bytes);
      writing_ = true;
      call_->Write(message_of(request), tag(Event::kWritten));
      return;
    }
    leaving_ = std::make_shared<const std::string>(std::move(frame.pixels));
    left_bytes_ = 0;
    if (leaving_->size() > piece_bytes()) header.set_size_bytes(leaving_->size());
    send_piece(request);
  }

  std::size_t piece_bytes() const {
    return opened_.piece_bytes() > 0 ? opened_.piece_bytes() : std::numeric_limits<std::size_t>::max();
  }

  // The next part of the frame that is leaving; `request` is what goes before it.
  void send_piece(const v1::StreamFramesRequest& request) {
    const std::size_t size = std::min(leaving_->size() - left_bytes_, piece_bytes());
    writing_ = true;
    call_->Write(join(request, part_of(leaving_, left_bytes_, size)), tag(Event::kWritten));
    left_bytes_ += size;
    if (left_bytes_ == leaving_->size()) leaving_.reset();
  }

  void handshake(const grpc::ByteBuffer& open) {
    call_->StartCall(tag(Event::kStarted));
    if (completed()) {
      call_->Write(open, tag(Event::kWritten));
      if (completed()) {
        call_->Read(&incoming_, tag(Event::kRead));
        if (completed()) {
          opened_ = parse(incoming_).opened();
          return;
        }
      }
    }
    end_call();
    throw Error(said());
  }

  bool completed() {
    void* event = nullptr;
    bool ok = false;
    return events_.Next(&event, &ok) && ok;
  }

  // Before there is a thread: wait until gRPC has let go of the call.
  void end_call() {
    call_->Finish(&status_, tag(Event::kFinished));
    completed();
    events_.Shutdown();
    while (completed()) {
    }
  }

  // Until the call has ended and gRPC has let go of it.
  void run() {
    void* event = nullptr;
    bool ok = false;
    while (events_.Next(&event, &ok)) {
      const std::scoped_lock lock(mutex_);
      switch (static_cast<Event>(reinterpret_cast<std::intptr_t>(event))) {
        case Event::kRead:
          if (ok && take_in()) {
            call_->Read(&incoming_, tag(Event::kRead));
          } else {
            ended_ = true;
            call_->Finish(&status_, tag(Event::kFinished));
          }
          break;
        case Event::kWritten:
        case Event::kDone:
          writing_ = false;
          if (ok) send_next();
          break;
        case Event::kFinished:
          finished_ = true;
          if (error_.empty() && !status_.ok()) error_ = said();
          break;
        case Event::kStarted:
          break;
      }
      if (finished_ && !writing_) events_.Shutdown();
      changed_.notify_all();
    }
  }

  // One message of the server; false where it makes no sense.
  bool take_in() {
    v1::StreamFramesResponse response;
    try {
      response = parse(incoming_);
    } catch (const Error& error) {
      error_ = error.what();
      context_.TryCancel();
      return false;
    }
    if (response.has_credit()) grant(response.credit());
    for (const v1::Credit& credit : response.credits()) grant(credit);
    if (response.has_result()) take_in(std::move(*response.mutable_result()));
    send_next();
    return true;
  }

  void grant(const v1::Credit& credit) {
    const auto lane = lanes_.find(credit.camera_id());
    if (lane != lanes_.end()) lane->second.credits += credit.frames();
  }

  void take_in(v1::Result result) {
    const auto sent = in_flight_.find({result.camera_id(), result.sequence()});
    if (sent == in_flight_.end()) return;
    ++lanes_.at(sent->first.first).counts.answered;
    if (sent->second.slot) slots_->give_back(*sent->second.slot);
    const std::int64_t took = now_ns() - sent->second.send_time_ns;
    in_flight_.erase(sent);
    if (results_.size() >= kMaxUnread) results_.pop_front();
    results_.push_back({std::move(result), took});
  }

  std::string said() const {
    // The server's own words end with what to do; gRPC's do not.
    const bool lost = status_.error_code() == grpc::StatusCode::UNAVAILABLE &&
                      status_.error_message().find("\u2192") == std::string::npos;
    return "the server at " + address_ + " ended the stream: " + status_.error_message() + " (status " +
           std::to_string(status_.error_code()) + ")" + (lost ? "\n  -> is `python -m server` running there?" : "");
  }

  const std::string address_;
  grpc::GenericStub stub_;
  grpc::CompletionQueue events_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;
  grpc::Status status_;
  v1::Opened opened_;
  std::optional<SharedSlots> slots_;

  mutable std::mutex mutex_;  // guards what follows, and slots_
  std::condition_variable changed_;
  std::map<std::string, Lane> lanes_;
  std::string last_served_;
  std::map<std::pair<std::string, std::uint64_t>, Sent> in_flight_;
  std::deque<Result> results_;
  std::shared_ptr<const std::string> leaving_;  // a frame of which there are pieces to send
  std::size_t left_bytes_ = 0;
  bool writing_ = false;
  bool finishing_ = false;
  bool writes_done_ = false;
  bool ended_ = false;
  bool finished_ = false;
  std::string error_;

  std::thread thread_;
};

Stream::Stream(const Options& options, std::vector<Camera> cameras)
    : implementation_(std::make_unique<Implementation>(options, std::move(cameras))) {}

Stream::~Stream() = default;

const v1::Opened& Stream::opened() const { return implementation_->opened(); }

std::uint64_t Stream::submit(const std::string& camera_id, std::string pixels, std::int64_t capture_time_ns) {
  return implementation_->submit(camera_id, std::move(pixels), capture_time_ns);
}

Slot Stream::slot(const std::string& camera_id) { return implementation_->begin_slot(camera_id); }

void Stream::finish() { implementation_->finish(); }

std::optional<Result> Stream::next() { return implementation_->next(); }

std::map<std::string, Counts> Stream::counts() const { return implementation_->counts(); }

Slot::~Slot() {
  if (stream_ != nullptr) stream_->give_back(number_);
}

std::uint64_t Slot::submit(std::size_t size_bytes, std::int64_t capture_time_ns) && {
  const std::uint64_t sequence = stream_->submit_slot(*this, size_bytes, capture_time_ns);
  stream_ = nullptr;  // the frame's answer gives the slot back
  return sequence;
}

}  // namespace monocoque

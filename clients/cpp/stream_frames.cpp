// Streams the frames of a folder, or a test pattern, and prints what comes back and where the time went.
//
//   stream_frames --frames 300 --rate 30 --shared-memory
//   stream_frames --folder pictures --camera front --server 127.0.0.1:8001
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string_view>
#include <thread>

#include "monocoque_client.hpp"

namespace {

using monocoque::v1::Ledger;
using Bytes = std::string;

constexpr char kHelp[] =
    "stream_frames [--server HOST:PORT] [--camera ID] [--size WIDTHxHEIGHT] [--folder DIR]\n"
    "              [--frames N] [--rate PER_SECOND] [--shared-memory] [--quiet]\n\n"
    "  --folder         JPEG files of one size, again and again, in place of a test pattern in RGB\n"
    "  --frames         how many frames to submit (default: 100)\n"
    "  --rate           frames per second; 0: each once the one before was answered (default: 0)\n"
    "  --shared-memory  through memory that the server shares: for a server on this host\n"
    "  --quiet          only the summary\n";

struct Arguments {
  monocoque::Options options;
  std::string camera_id = "front";
  std::filesystem::path folder;
  std::uint32_t width = 640;
  std::uint32_t height = 384;
  std::uint32_t frames = 100;
  std::uint32_t rate = 0;
  bool quiet = false;
};

std::uint32_t number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) {
    throw monocoque::Error("'" + std::string(text) + "' is no number\n  -> see stream_frames --help");
  }
  return value;
}

Arguments parse(std::span<char*> words) {
  Arguments found;
  for (std::size_t index = 1; index < words.size(); ++index) {
    const std::string_view flag = words[index];
    const auto value = [&]() -> std::string_view {
      if (index + 1 == words.size()) throw monocoque::Error(std::string(flag) + " needs a value");
      return words[++index];
    };
    if (flag == "--server") {
      found.options.address = value();
    } else if (flag == "--camera") {
      found.camera_id = value();
    } else if (flag == "--folder") {
      found.folder = value();
    } else if (flag == "--size") {
      const std::string_view size = value();
      const std::size_t cross = size.find('x');
      if (cross == std::string_view::npos) throw monocoque::Error("write --size WIDTHxHEIGHT, for example 640x384");
      found.width = number(size.substr(0, cross));
      found.height = number(size.substr(cross + 1));
    } else if (flag == "--frames") {
      found.frames = number(value());
    } else if (flag == "--rate") {
      found.rate = number(value());
    } else if (flag == "--shared-memory") {
      found.options.shared_memory = true;
    } else if (flag == "--quiet") {
      found.quiet = true;
    } else {
      throw monocoque::Error("no such flag: " + std::string(flag) + "\n  -> see stream_frames --help");
    }
  }
  return found;
}

// Width and height by a JPEG file's start-of-frame segment (ITU-T T.81, B.2.2).
std::pair<std::uint32_t, std::uint32_t> jpeg_size(const Bytes& file, const std::filesystem::path& path) {
  const auto byte = [&](std::size_t at) { return std::uint32_t{static_cast<unsigned char>(file[at])}; };
  for (std::size_t at = 2; at + 9 < file.size() && byte(at) == 0xff;) {
    const std::uint32_t marker = byte(at + 1);
    if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
      return {byte(at + 7) << 8 | byte(at + 8), byte(at + 5) << 8 | byte(at + 6)};
    }
    at += 2 + (byte(at + 2) << 8 | byte(at + 3));
  }
  throw monocoque::Error(path.string() + " is no JPEG file");
}

std::vector<Bytes> read_folder(Arguments& arguments) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(arguments.folder)) {
    if (entry.path().extension() == ".jpg" || entry.path().extension() == ".jpeg") paths.push_back(entry.path());
  }
  if (paths.empty()) throw monocoque::Error("no .jpg file in " + arguments.folder.string());
  std::ranges::sort(paths);
  std::vector<Bytes> files;
  for (const auto& path : paths) {
    std::ifstream stream(path, std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  std::tie(arguments.width, arguments.height) = jpeg_size(files.front(), paths.front());
  return files;
}

// A ramp that moves to the right, one column a frame.
void draw_pattern(std::span<std::byte> pixels, std::uint32_t width, std::uint32_t shift) {
  for (std::size_t pixel = 0; pixel < pixels.size() / 3; ++pixel) {
    const auto shade = static_cast<std::byte>((pixel % width + shift) & 0xff);
    std::fill_n(pixels.begin() + static_cast<std::ptrdiff_t>(3 * pixel), 3, shade);
  }
}

// The stages that a frame reached: every optional time of the ledger but the error bound of the first.
std::vector<std::pair<std::string, std::int64_t>> stages(const Ledger& ledger) {
  std::vector<std::pair<std::string, std::int64_t>> found;
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  ledger.GetReflection()->ListFields(ledger, &fields);
  for (const auto* field : fields) {
    if (!field->has_presence() || field->number() == Ledger::kTransportUncertaintyNsFieldNumber) continue;
    const std::string name = field->name().substr(0, field->name().rfind("_ns"));
    found.emplace_back(name, ledger.GetReflection()->GetInt64(ledger, field));
  }
  return found;
}

double milliseconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e6; }

void print(const monocoque::Result& result) {
  const auto& message = result.message;
  std::printf("%s %llu %s age %.2f ms, end to end %.2f ms", message.camera_id().c_str(),
              static_cast<unsigned long long>(message.sequence()), monocoque::v1::Status_Name(message.status()).c_str(),
              milliseconds(message.age().age_ns()), milliseconds(result.end_to_end_ns));
  for (const auto& [name, value] : stages(message.ledger())) {
    std::printf(", %s %.3f", name.c_str(), milliseconds(value));
  }
  if (!message.reason().empty()) std::printf(" (%s)", message.reason().c_str());
  std::printf("\n");
  for (const auto& found : message.detections()) {
    std::printf("  %s %.2f at %.0f,%.0f to %.0f,%.0f\n", found.label().c_str(), found.score(), found.x_min(),
                found.y_min(), found.x_max(), found.y_max());
  }
}

// What a whole run gave.
class Summary {
 public:
  void add(const monocoque::Result& result) {
    ++statuses_[monocoque::v1::Status_Name(result.message.status())];
    if (result.message.status() != monocoque::v1::STATUS_OK) return;
    std::int64_t sum = 0;
    for (const auto& [name, value] : stages(result.message.ledger())) {
      times_[name].push_back(value);
      sum += value;
    }
    if (sum != result.message.ledger().total_ns() || sum > result.end_to_end_ns) ++contradictions_;
    times_["end to end"].push_back(result.end_to_end_ns);
  }

  void print(const std::map<std::string, monocoque::Counts>& counts) {
    for (const auto& [id, of] : counts) {
      std::printf("%s: submitted %llu, client_dropped %llu, sent %llu, answered %llu\n", id.c_str(),
                  static_cast<unsigned long long>(of.submitted), static_cast<unsigned long long>(of.client_dropped),
                  static_cast<unsigned long long>(of.sent), static_cast<unsigned long long>(of.answered));
    }
    for (const auto& [status, count] : statuses_) std::printf("%s: %zu\n", status.c_str(), count);
    for (auto& [name, values] : times_) {
      std::ranges::sort(values);
      std::printf("%s: p50 %.3f ms, p99 %.3f ms\n", name.c_str(), milliseconds(values[values.size() / 2]),
                  milliseconds(values[values.size() * 99 / 100]));
    }
    std::printf("ledgers that do not add up: %zu\n", contradictions_);
  }

 private:
  std::map<std::string, std::size_t> statuses_;
  std::map<std::string, std::vector<std::int64_t>> times_;
  std::size_t contradictions_ = 0;
};

void run(Arguments arguments) {
  const std::vector<Bytes> files = arguments.folder.empty() ? std::vector<Bytes>() : read_folder(arguments);
  monocoque::Camera camera;
  camera.set_id(arguments.camera_id);
  camera.set_width(arguments.width);
  camera.set_height(arguments.height);
  camera.set_encoding(files.empty() ? monocoque::v1::ENCODING_RGB8 : monocoque::v1::ENCODING_JPEG);
  monocoque::Stream stream(arguments.options, {camera});
  const std::size_t raw_bytes = std::size_t{3} * arguments.width * arguments.height;

  const auto submit = [&](std::uint32_t index) {
    if (files.empty() && arguments.options.shared_memory) {
      monocoque::Slot slot = stream.slot(camera.id());
      draw_pattern(slot.pixels().first(raw_bytes), arguments.width, index);  // straight where the server reads it
      std::move(slot).submit(raw_bytes);
    } else if (files.empty()) {
      Bytes pixels(raw_bytes, '\0');
      draw_pattern(std::as_writable_bytes(std::span(pixels)), arguments.width, index);
      stream.submit(camera.id(), std::move(pixels));
    } else {
      stream.submit(camera.id(), files[index % files.size()]);
    }
  };

  Summary summary;
  const auto take = [&](const monocoque::Result& result) {
    if (!arguments.quiet) print(result);
    summary.add(result);
  };
  const auto take_all = [&] {
    while (const auto result = stream.next()) take(*result);
  };
  // What came until the stream broke counts, too; then it is said why it did.
  std::exception_ptr broken;
  const auto unless_broken = [&broken](const auto& step) {
    try {
      step();
    } catch (const monocoque::Error&) {
      broken = std::current_exception();
    }
  };
  if (arguments.rate == 0) {
    unless_broken([&] {
      for (std::uint32_t index = 0; index < arguments.frames; ++index) {
        submit(index);
        if (const auto result = stream.next()) take(*result);
      }
      stream.finish();
      take_all();
    });
  } else {
    std::exception_ptr broken_for_reader;
    std::jthread reader([&] {
      try {
        take_all();
      } catch (const monocoque::Error&) {
        broken_for_reader = std::current_exception();
      }
    });
    unless_broken([&] {
      const auto started = std::chrono::steady_clock::now();
      for (std::uint32_t index = 0; index < arguments.frames; ++index) {
        std::this_thread::sleep_until(started + std::chrono::nanoseconds(1'000'000'000LL * index / arguments.rate));
        submit(index);
      }
    });
    stream.finish();
    reader.join();
    if (!broken) broken = broken_for_reader;
  }
  summary.print(stream.counts());
  if (broken) std::rethrow_exception(broken);
}

}  // namespace

int main(int count, char** words) {
  const std::span all(words, static_cast<std::size_t>(count));
  if (std::ranges::any_of(all.subspan(1), [](std::string_view word) { return word == "--help"; })) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  try {
    run(parse(all));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stream_frames: %s\n", error.what());
    return 1;
  }
  return 0;
}

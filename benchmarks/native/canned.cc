// A server whose answers cost next to nothing: gRPC and HTTP/1.1, each with and without TLS.
//
// canned ANSWERS CERTIFICATE KEY
//
// ANSWERS is a folder that holds what is sent, already serialized:
//   head, item            the answer to a prediction is head followed by one item an input
//   json_head, json_item, json_tail   the same in JSON, items separated by commas
//   token                 one message of the answer to GenerateModelOutputs, sent TOKENS times
//   GetModel              the answer to that method
// Prints "grpc grpcs http https" as four port numbers and serves until it is killed.
//
// A gRPC request is looked at as far as needed to count its inputs; an HTTP request says its
// number of inputs in the header x-inputs (1 when absent), and its body is dropped.

#include <arpa/inet.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kTokens = 1000;
constexpr int kInputsField = 4;  // of PostModelOutputsRequest
constexpr const char* kService = "/clarifai.api.V2/";

std::string File(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    fprintf(stderr, "cannot read %s\n", path.c_str());
    exit(1);
  }
  return {std::istreambuf_iterator<char>(stream), {}};
}

grpc::ByteBuffer Buffer(const std::string& content) {
  grpc::Slice slice(content);
  return grpc::ByteBuffer(&slice, 1);
}

// Answers by number of inputs, made when first asked for.
class Answers {
 public:
  explicit Answers(const std::string& folder)
      : head_(File(folder + "/head")),
        item_(File(folder + "/item")),
        json_head_(File(folder + "/json_head")),
        json_item_(File(folder + "/json_item")),
        json_tail_(File(folder + "/json_tail")),
        token(Buffer(File(folder + "/token"))),
        model(Buffer(File(folder + "/GetModel"))) {}

  grpc::ByteBuffer Message(size_t inputs) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = messages_.find(inputs);
    if (found == messages_.end()) {
      std::string content = head_;
      for (size_t i = 0; i < inputs; ++i) content += item_;
      found = messages_.emplace(inputs, Buffer(content)).first;
    }
    return found->second;
  }

  // The whole HTTP response. It is never changed, so that the reference stays good.
  const std::string& Http(size_t inputs) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = responses_.find(inputs);
    if (found == responses_.end()) {
      std::string body = json_head_;
      for (size_t i = 0; i < inputs; ++i) body += (i ? "," : "") + json_item_;
      body += json_tail_;
      std::string content = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " +
                            std::to_string(body.size()) + "\r\n\r\n" + body;
      found = responses_.emplace(inputs, std::move(content)).first;
    }
    return found->second;
  }

 private:
  std::string head_, item_, json_head_, json_item_, json_tail_;
  std::mutex mutex_;
  std::map<size_t, grpc::ByteBuffer> messages_;
  std::map<size_t, std::string> responses_;

 public:
  const grpc::ByteBuffer token, model;
};

// Reads a serialized message that lies in several slices, without joining them.
class Reader {
 public:
  explicit Reader(const std::vector<grpc::Slice>& slices) : slices_(slices) { Advance(0); }
  bool Done() const { return slice_ == slices_.size(); }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; !Done() && shift < 64; shift += 7) {
      uint8_t byte = slices_[slice_].begin()[offset_];
      Advance(1);
      value |= uint64_t(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  void Advance(uint64_t count) {
    offset_ += count;
    while (!Done() && offset_ >= slices_[slice_].size()) offset_ -= slices_[slice_++].size();
  }

 private:
  const std::vector<grpc::Slice>& slices_;
  size_t slice_ = 0;
  uint64_t offset_ = 0;
};

size_t CountInputs(const grpc::ByteBuffer& request) {
  std::vector<grpc::Slice> slices;
  if (!request.Dump(&slices).ok()) return 0;
  Reader reader(slices);
  size_t inputs = 0;
  while (!reader.Done()) {
    uint64_t tag = reader.Varint();
    if ((tag & 7) == 2) {
      reader.Advance(reader.Varint());
      inputs += (tag >> 3) == kInputsField;
    } else {
      reader.Varint();
    }
  }
  return inputs;
}

enum class Kind { kUnary, kGenerate, kDuplex, kModel, kUnknown };

Kind KindOf(const std::string& path) {
  static const size_t prefix = strlen(kService);
  if (path.compare(0, prefix, kService) != 0) return Kind::kUnknown;
  const std::string name = path.substr(prefix);
  if (name == "PostModelOutputs") return Kind::kUnary;
  if (name == "GenerateModelOutputs") return Kind::kGenerate;
  if (name == "StreamModelOutputs") return Kind::kDuplex;
  if (name == "GetModel") return Kind::kModel;
  return Kind::kUnknown;
}

class Call : public grpc::ServerGenericBidiReactor {
 public:
  Call(Answers& answers, const std::string& path) : answers_(answers), kind_(KindOf(path)) {
    if (kind_ == Kind::kUnknown) {
      Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, path));
    } else {
      StartRead(&request_);
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    switch (kind_) {
      case Kind::kGenerate:
        left_ = kTokens;
        response_ = answers_.token;
        StartWrite(&response_);
        break;
      case Kind::kDuplex:
        response_ = answers_.Message(CountInputs(request_));
        StartWrite(&response_);
        break;
      default:
        response_ =
            kind_ == Kind::kModel ? answers_.model : answers_.Message(CountInputs(request_));
        StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
    }
  }

  void OnWriteDone(bool ok) override {
    if (kind_ == Kind::kUnary || kind_ == Kind::kModel) return;
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
    } else if (kind_ == Kind::kDuplex) {
      StartRead(&request_);
    } else if (--left_ > 0) {
      response_ = answers_.token;
      StartWrite(&response_);
    } else {
      Finish(grpc::Status::OK);
    }
  }

  void OnDone() override { delete this; }

 private:
  Answers& answers_;
  const Kind kind_;
  int left_ = 0;
  grpc::ByteBuffer request_, response_;
};

class Service : public grpc::CallbackGenericService {
 public:
  explicit Service(Answers& answers) : answers_(answers) {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    return new Call(answers_, context->method());
  }

 private:
  Answers& answers_;
};

// A connection, with or without TLS.
class Connection {
 public:
  Connection(int socket, SSL_CTX* context) : socket_(socket) {
    int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (context != nullptr) {
      ssl_ = SSL_new(context);
      SSL_set_fd(ssl_, socket_);
      open_ = SSL_accept(ssl_) == 1;
    }
  }
  ~Connection() {
    if (ssl_ != nullptr) SSL_free(ssl_);
    close(socket_);
  }
  bool open() const { return open_; }
  ssize_t Read(char* into, size_t size) {
    return ssl_ != nullptr ? SSL_read(ssl_, into, int(size)) : read(socket_, into, size);
  }
  bool Write(const std::string& content) {
    for (size_t done = 0; done < content.size();) {
      const char* from = content.data() + done;
      const size_t size = content.size() - done;
      ssize_t count = ssl_ != nullptr ? SSL_write(ssl_, from, int(size)) : write(socket_, from, size);
      if (count <= 0) return false;
      done += size_t(count);
    }
    return true;
  }

 private:
  int socket_;
  SSL* ssl_ = nullptr;
  bool open_ = true;
};

size_t Header(const char* head, const char* name, size_t otherwise) {
  const size_t length = strlen(name);
  for (const char* line = strstr(head, "\r\n"); line != nullptr; line = strstr(line, "\r\n")) {
    line += 2;
    if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
      return strtoull(line + length + 1, nullptr, 10);
    }
  }
  return otherwise;
}

void ServeHttp(Answers& answers, int socket, SSL_CTX* context) {
  Connection connection(socket, context);
  std::vector<char> buffer(1 << 18);
  size_t have = 0;
  while (connection.open()) {
    char* end = nullptr;
    while (end == nullptr) {
      if (have + 1 >= buffer.size()) return;
      ssize_t count = connection.Read(buffer.data() + have, buffer.size() - have - 1);
      if (count <= 0) return;
      have += size_t(count);
      buffer[have] = 0;
      end = strstr(buffer.data(), "\r\n\r\n");
    }
    const size_t head = size_t(end - buffer.data()) + 4;
    end[2] = 0;
    size_t body = Header(buffer.data(), "content-length", 0);
    const size_t inputs = Header(buffer.data(), "x-inputs", 1);
    size_t here = have - head;
    if (here > body) return;  // no pipelining
    body -= here;
    while (body > 0) {
      ssize_t count = connection.Read(buffer.data(), std::min(buffer.size(), body));
      if (count <= 0) return;
      body -= size_t(count);
    }
    have = 0;
    if (!connection.Write(answers.Http(inputs))) return;
  }
}

int Listen() {
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(listener, 512)) {
    perror("listen");
    exit(1);
  }
  return listener;
}

int Port(int listener) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

void Accept(Answers& answers, int listener, SSL_CTX* context) {
  for (;;) {
    int socket = accept(listener, nullptr, nullptr);
    if (socket >= 0) std::thread(ServeHttp, std::ref(answers), socket, context).detach();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: canned ANSWERS CERTIFICATE KEY\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  Answers answers(argv[1]);

  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  if (SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1) {
    fprintf(stderr, "cannot use the certificate\n");
    return 1;
  }

  Service service(answers);
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back({File(argv[3]), File(argv[2])});
  int plain_port = 0, tls_port = 0;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &plain_port);
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls), &tls_port);
  builder.RegisterCallbackGenericService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;

  const int http = Listen(), https = Listen();
  printf("%d %d %d %d\n", plain_port, tls_port, Port(http), Port(https));
  fflush(stdout);
  std::thread(Accept, std::ref(answers), http, nullptr).detach();
  Accept(answers, https, context);
}

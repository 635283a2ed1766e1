#include "comm/mpi/mpi_api.hpp"

#include <array>

#include <fmt/format.h>

namespace lockstep::comm {

namespace {

ErrorCode code_of(int error_class) {
  switch (error_class) {
    case MPI_ERR_TRUNCATE:
      return ErrorCode::kDiverged;
    case MPI_ERR_BUFFER:
    case MPI_ERR_COUNT:
    case MPI_ERR_TYPE:
    case MPI_ERR_TAG:
    case MPI_ERR_COMM:
    case MPI_ERR_RANK:
    case MPI_ERR_REQUEST:
    case MPI_ERR_OP:
    case MPI_ERR_ARG:
      return ErrorCode::kInternal;
    default:
      return ErrorCode::kPeerLost;
  }
}

}  // namespace

std::string mpi_error_text(int code) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) {
    return fmt::format("MPI error {}", code);
  }
  return {text.data(), static_cast<std::size_t>(length)};
}

Error mpi_error(int code, int rank, std::string_view operation, std::optional<int> peer) {
  int error_class = code;
  static_cast<void>(MPI_Error_class(code, &error_class));  // on failure the code itself is the best that is known
  const std::string with_peer = peer ? fmt::format(" with rank {}", *peer) : std::string();
  return {code_of(error_class), fmt::format("rank {}: {}{} failed: {}", rank, operation, with_peer, mpi_error_text(code)), peer};
}

}  // namespace lockstep::comm

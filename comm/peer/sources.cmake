# The peer channel's part of lockstep_comm; included by comm/CMakeLists.txt.
# Global, as whoever links lockstep_comm links this too, from other folders.
find_package(OpenSSL REQUIRED COMPONENTS Crypto GLOBAL)
target_sources(lockstep_comm PRIVATE
  ${CMAKE_CURRENT_LIST_DIR}/connection.cpp
  ${CMAKE_CURRENT_LIST_DIR}/failure_detector.cpp
  ${CMAKE_CURRENT_LIST_DIR}/handshake.cpp
  ${CMAKE_CURRENT_LIST_DIR}/listen_address.cpp
  ${CMAKE_CURRENT_LIST_DIR}/mesh/clock_difference.cpp
  ${CMAKE_CURRENT_LIST_DIR}/mesh/connecting.cpp
  ${CMAKE_CURRENT_LIST_DIR}/mesh/mesh.cpp
  ${CMAKE_CURRENT_LIST_DIR}/mesh/report_collection.cpp
  ${CMAKE_CURRENT_LIST_DIR}/mesh/reports.cpp
  ${CMAKE_CURRENT_LIST_DIR}/peer_channel.cpp
  ${CMAKE_CURRENT_LIST_DIR}/wire/authentication.cpp
  ${CMAKE_CURRENT_LIST_DIR}/wire/frame.cpp)
target_link_libraries(lockstep_comm PRIVATE OpenSSL::Crypto Boost::headers)

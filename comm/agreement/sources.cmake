# Included by comm/CMakeLists.txt.
target_sources(lockstep_comm PRIVATE
  ${CMAKE_CURRENT_LIST_DIR}/device_exchange/device_expert_exchange.cpp
  ${CMAKE_CURRENT_LIST_DIR}/divergence.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exchange_message.cpp
  ${CMAKE_CURRENT_LIST_DIR}/expert_exchange.cpp
  ${CMAKE_CURRENT_LIST_DIR}/group.cpp
  ${CMAKE_CURRENT_LIST_DIR}/step_agreement.cpp
  ${CMAKE_CURRENT_LIST_DIR}/step_plan.cpp
  ${CMAKE_CURRENT_LIST_DIR}/step_progress.cpp)

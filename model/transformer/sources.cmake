target_sources(lockstep_model PRIVATE transformer/transformer.cpp transformer/host_access.cpp transformer/layer_weights.cpp)

target_sources(lockstep_model PRIVATE transformer/transformer.cpp transformer/layer_weights.cpp)

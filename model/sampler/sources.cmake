target_sources(lockstep_model PRIVATE sampler/sampler.cpp sampler/token_counts.cpp)

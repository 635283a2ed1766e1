target_sources(lockstep_model PRIVATE sampler/noise.cpp sampler/row_math.cpp sampler/sampler.cpp sampler/token_choice_list.cpp sampler/token_counts.cpp)
set_source_files_properties(sampler/row_math.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

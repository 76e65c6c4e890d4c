# The compiler's flags. Presets choose CMAKE_BUILD_TYPE and UMBRA_SANITIZE.
set(UMBRA_SANITIZE "" CACHE STRING "address,undefined | thread | fuzzer-no-link,... (empty: none)")
option(UMBRA_COVERAGE "Instrument for gcov" OFF)
option(UMBRA_FUZZ "Build the libFuzzer targets (needs clang)" OFF)

if(NOT CMAKE_BUILD_TYPE)
	set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

add_compile_definitions(_GNU_SOURCE UMBRA_VERSION="${PROJECT_VERSION}")
add_compile_options(
	-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
	-Wold-style-definition -Wpointer-arith -Wvla -Wwrite-strings -Wundef
	-Wno-unused-parameter -Wno-missing-field-initializers
	-fno-strict-aliasing -fno-common -fvisibility=hidden
	$<$<C_COMPILER_ID:GNU>:-Wno-clobbered>
	# The kernel's structures end in arrays, and ours put the entries after them.
	$<$<C_COMPILER_ID:Clang>:-Wno-gnu-variable-sized-type-not-at-end>)
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g3 -DUMBRA_DEBUG")
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
add_link_options(-Wl,-z,relro,-z,now -Wl,--as-needed)
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" AND NOT UMBRA_SANITIZE)
	add_compile_options(-fstack-protector-strong)
	add_compile_definitions(_FORTIFY_SOURCE=2)
endif()
if(UMBRA_SANITIZE)
	add_compile_options(-fsanitize=${UMBRA_SANITIZE} -fno-omit-frame-pointer
		-fno-sanitize-recover=all -O1)
	add_link_options(-fsanitize=${UMBRA_SANITIZE})
endif()
if(UMBRA_COVERAGE)
	add_compile_options(--coverage -O0)
	add_link_options(--coverage)
endif()

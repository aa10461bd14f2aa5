// The tables that exist in this build; which of them may run is decided in select.cc.
#pragma once

#include "loader/ram/kernels/page_kernels.h"

namespace migrx {

extern const PageKernels kScalarPageKernels;
#if defined(__x86_64__)
extern const PageKernels kSse2PageKernels;
extern const PageKernels kAvx2PageKernels;
extern const PageKernels kAvx512PageKernels;
#endif

}  // namespace migrx

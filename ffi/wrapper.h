/* What bindgen reads: the tables a module exports, and the shim. Everything else of Kamailio is reached
 * through the shim, so that no structure whose layout moves between versions is known to Rust. */
#include "core/sr_module.h"
#include "core/dprint.h"
#include "core/kemi.h"
#include "core/mod_fix.h"
#include "core/pvar.h"
#include "core/rpc.h"
#include "shim.h"

/* bindgen does not evaluate a macro with sizeof in it. */
static const unsigned int SHIM_PARAM_USE_FUNC = PARAM_USE_FUNC;

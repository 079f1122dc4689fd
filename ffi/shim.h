/*
 * The C half of locus-ffi: Kamailio's macros, inline functions and variadic calls as plain functions, and flat
 * views of a SIP message, filled by Kamailio's own parsers.
 *
 * It knows Kamailio only: no table, no record, no location. Every `str` in a view points into the message or
 * into memory of the core and is valid as long as the message is; nothing here keeps a pointer.
 */
#ifndef LOCUS_FFI_SHIM_H
#define LOCUS_FFI_SHIM_H

#include "core/config.h"
#include "core/str.h"
#include "core/parser/msg_parser.h"
#include "core/pvar.h"
#include "core/rpc.h"
#include "core/kemi.h"

/* ---- log, process, chance, counters ---- */

int shim_log_enabled(int level);
void shim_log(int level, const char *text, int len);
int shim_process_number(void);
/* A pseudo-random number of this process's own sequence, 31 bits. */
unsigned int shim_random(void);

/* Registers a statistic; only before the fork. Returns its handle or -1. */
int shim_counter_register(const char *group, const char *name, const char *doc);
void shim_counter_add(int handle, int n);
long shim_counter_value(int handle);

/* ---- modules ---- */

int shim_register_kemi(sr_kemi_t *table);
/* Binds the sl module; needed before shim_reply. */
int shim_bind_sl(void);

typedef int (*shim_script_cb_t)(sip_msg_t *msg, unsigned int flags, void *param);
typedef void (*shim_timer_t)(unsigned int ticks, void *param);

/* Both only while modules are initialised. Returns 0 or -1. The script runs unless `run` returns 0. */
int shim_before_script(shim_script_cb_t run);
int shim_after_script(shim_script_cb_t run);
/* Calls `run` every so often in the process for slow timers. Only while modules are initialised. Returns 0 or -1. */
int shim_every(shim_timer_t run, unsigned int seconds);

/* ---- script parameters, pseudo-variables ---- */

int shim_parameter_text(sip_msg_t *msg, char *param, str *out);
void shim_pv_choose(pv_spec_t *spec, int choice);
int shim_pv_choice(pv_param_t *param);
int shim_pv_number(sip_msg_t *msg, pv_param_t *param, pv_value_t *res, unsigned long value);
int shim_pv_text(sip_msg_t *msg, pv_param_t *param, pv_value_t *res, const char *text, int len);
int shim_pv_null(sip_msg_t *msg, pv_param_t *param, pv_value_t *res);

/* ---- RPC ---- */

int shim_rpc_argument(rpc_t *rpc, void *ctx, str *out);
int shim_rpc_struct(rpc_t *rpc, void *ctx, void **out);
int shim_rpc_text(rpc_t *rpc, void *st, const char *name, const char *text, int len);
int shim_rpc_number(rpc_t *rpc, void *st, const char *name, unsigned long value);
int shim_rpc_list(rpc_t *rpc, void *st, const char *name, void **out);
int shim_rpc_list_struct(rpc_t *rpc, void *list, void **out);
void shim_rpc_fault(rpc_t *rpc, void *ctx, int code, const char *text);

/* ---- requests ---- */

typedef struct shim_uri {
	str user; /* as it stands, not unescaped */
	str host;
	unsigned short port; /* 0: none given */
	int is_sip;			 /* sip:, sips:, tel: or tels: */
} shim_uri_t;

int shim_is_request(sip_msg_t *msg);
/* The changed Request-URI when there is one, else the original. */
int shim_request_uri(sip_msg_t *msg, str *out);
/* The parts of the same, parsed once for as long as it stays; -1 when it cannot be parsed. */
int shim_request_uri_parts(sip_msg_t *msg, shim_uri_t *out);
int shim_parse_uri(const char *text, int len, shim_uri_t *out);
/* The method's bit, as in the `methods` of a binding. */
unsigned int shim_method(sip_msg_t *msg);
int shim_has_to_tag(sip_msg_t *msg);
/* 1 for a request outside of a dialog that is meant for whom its Request-URI names; looks at parsed headers only. */
int shim_is_initial(sip_msg_t *msg);
int shim_flag_is_set(sip_msg_t *msg, int flag);
/* 1 present, 0 absent, -1 the headers cannot be parsed. */
int shim_has_header(sip_msg_t *msg, const char *name, int len);
/* Appends one header line (with its CR LF) to the request that is forwarded. */
int shim_append_header(sip_msg_t *msg, const char *line, int len);

/* One destination of a request. An empty `str` means absent. */
typedef struct shim_target {
	str uri;
	str received; /* where it came from: next hop, unless there is a path */
	str path;
	str instance;
	str socket; /* proto:host:port; used when it is one of ours */
	str user_agent;
	unsigned int reg_id;  /* 0: none */
	int q;				  /* 0..1000, -1 unspecified */
	unsigned int flags;	  /* branch flags, added to those set */
	int tcp_connection;	  /* -1: none */
} shim_target_t;

/* The longest path that a branch can carry. */
#define SHIM_BRANCH_PATH_MAX (MAX_PATH_SIZE - 1)

/* Makes the target the Request-URI and next hop, whatever they were before (branches, branch flags and a forced
 * socket stay). 0, or -1: another target may be set,
 * or the request is to be refused. */
int shim_set_target(sip_msg_t *msg, const shim_target_t *target);
/* Appends the target as a further branch. 0, or -1 and nothing is appended. */
int shim_add_branch(sip_msg_t *msg, const shim_target_t *target);
int shim_set_destination(sip_msg_t *msg, const char *uri, int len);
/* 1 when host and port (0: any) are those of a socket or an alias of this server. */
int shim_is_own_address(const char *host, int len, unsigned short port);
/* Sends a reply through sl (stateful when there is a transaction); `headers` are complete lines, which are in no
 * later reply when it fails. */
int shim_reply(sip_msg_t *msg, int code, const char *reason, const char *headers, int len);

/* ---- REGISTER ---- */

#define SHIM_CONTACTS_MAX 32
#define SHIM_PATHS_MAX 8

enum shim_register_fault {
	SHIM_REGISTER_OK = 0,
	SHIM_REGISTER_HEADERS,		/* the headers cannot be parsed */
	SHIM_REGISTER_NO_TO,
	SHIM_REGISTER_NO_CALL_ID,
	SHIM_REGISTER_NO_CSEQ,
	SHIM_REGISTER_EXPIRES,
	SHIM_REGISTER_CONTACT,
	SHIM_REGISTER_STAR_EXPIRES, /* `*` and Expires is not 0 */
	SHIM_REGISTER_STAR_MIXED,	/* `*` beside another contact */
	SHIM_REGISTER_CSEQ,
	SHIM_REGISTER_Q,
	SHIM_REGISTER_METHODS,
	SHIM_REGISTER_REG_ID,
	SHIM_REGISTER_PATH,			/* unreadable, or its first hop is no loose router */
	SHIM_REGISTER_TOO_MANY,		/* more contacts or Path headers than the view holds */
	SHIM_REGISTER_OUTBOUND		/* Require: outbound, which is not offered */
};

typedef struct shim_contact {
	str uri;
	str instance;		  /* without the quotes */
	int expires;		  /* seconds; -1 neither a parameter nor an Expires header */
	int q;				  /* 0..1000, -1 unspecified */
	unsigned int methods; /* bit mask; all ones when nothing is said */
	unsigned int reg_id;  /* 0: none */
} shim_contact_t;

typedef struct shim_register {
	str to_uri;
	str call_id;
	str user_agent;
	str paths[SHIM_PATHS_MAX];
	str socket; /* the receiving socket, proto:host:port */
	unsigned int cseq;
	int star;
	int tcp_connection; /* -1: not a connection */
	int supports_path;
	int path_count;
	int contact_count;
	unsigned int branch_flags;
	int source_len;
	char source[96]; /* sip:address:port[;transport=…] of the sender */
	shim_contact_t contacts[SHIM_CONTACTS_MAX];
} shim_register_t;

/* Fills the view from a REGISTER; returns a shim_register_fault. */
int shim_register(sip_msg_t *msg, shim_register_t *view);

#endif

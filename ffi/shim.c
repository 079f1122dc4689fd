/* The C half of locus-ffi; see shim.h. Compiled with the flags of the installed Kamailio. */
#include "shim.h"

#include "core/counters.h"
#include "core/data_lump.h"
#include "core/data_lump_rpl.h"
#include "core/dprint.h"
#include "core/dset.h"
#include "core/forward.h"
#include "core/globals.h"
#include "core/mem/mem.h"
#include "core/mod_fix.h"
#include "core/parser/contact/parse_contact.h"
#include "core/parser/hf.h"
#include "core/parser/parse_allow.h"
#include "core/parser/parse_cseq.h"
#include "core/parser/parse_expires.h"
#include "core/parser/parse_methods.h"
#include "core/parser/parse_require.h"
#include "core/parser/parse_rr.h"
#include "core/parser/parse_supported.h"
#include "core/parser/parse_to.h"
#include "core/parser/parse_uri.h"
#include "core/pt.h"
#include "core/pvapi.h"
#include "core/qvalue.h"
#include "core/rand/kam_rand.h"
#include "core/script_cb.h"
#include "core/socket_info.h"
#include "core/timer.h"
#include "core/trim.h"
#include "core/ut.h"
#include "modules/sl/sl.h"

static sl_api_t sl;

/* ---- log, process, chance, counters ---- */

int shim_log_enabled(int level)
{
	return is_printable(level);
}

void shim_log(int level, const char *text, int len)
{
	LOG_FN(DEFAULT_FACILITY, level, MOD_NAME ": ", "%.*s\n", len, text);
}

int shim_process_number(void)
{
	return process_no;
}

unsigned int shim_random(void)
{
	return (unsigned int)kam_rand();
}

int shim_counter_register(const char *group, const char *name, const char *doc)
{
	counter_handle_t handle;

	if(counter_register(&handle, group, name, 0, 0, 0, doc, 0) < 0)
		return -1;
	return handle.id;
}

void shim_counter_add(int id, int n)
{
	counter_handle_t handle = {.id = (unsigned short)id};

	counter_add(handle, n);
}

long shim_counter_value(int id)
{
	counter_handle_t handle = {.id = (unsigned short)id};

	return counter_get_val(handle);
}

/* ---- modules ---- */

int shim_register_kemi(sr_kemi_t *table)
{
	return sr_kemi_modules_add(table);
}

int shim_bind_sl(void)
{
	return sl_load_api(&sl);
}

int shim_before_script(shim_script_cb_t run)
{
	return register_script_cb(run, PRE_SCRIPT_CB | REQUEST_CB, NULL);
}

int shim_after_script(shim_script_cb_t run)
{
	return register_script_cb(run, POST_SCRIPT_CB | REQUEST_CB, NULL);
}

int shim_every(shim_timer_t run, unsigned int seconds)
{
	return register_timer(run, NULL, seconds) < 0 ? -1 : 0;
}

/* ---- script parameters, pseudo-variables ---- */

int shim_parameter_text(sip_msg_t *msg, char *param, str *out)
{
	return get_str_fparam(out, msg, (fparam_t *)param);
}

void shim_pv_choose(pv_spec_t *spec, int choice)
{
	spec->pvp.pvn.u.isname.name.n = choice;
	spec->pvp.pvn.type = PV_NAME_INTSTR;
}

int shim_pv_choice(pv_param_t *param)
{
	return (int)param->pvn.u.isname.name.n;
}

int shim_pv_number(sip_msg_t *msg, pv_param_t *param, pv_value_t *res, unsigned long value)
{
	char *buffer = pv_get_buffer();
	str text;
	int n;

	n = snprintf(buffer, pv_get_buffer_size(), "%lu", value);
	if(n <= 0)
		return pv_get_null(msg, param, res);
	text.s = buffer;
	text.len = n;
	/* The integer side of a variable is an int here; a larger value keeps its text. */
	return pv_get_intstrval(msg, param, res, value > INT_MAX ? INT_MAX : (int)value, &text);
}

int shim_pv_text(sip_msg_t *msg, pv_param_t *param, pv_value_t *res, const char *text, int len)
{
	char *buffer = pv_get_buffer();
	str copy;

	if(len < 0 || len >= pv_get_buffer_size())
		return pv_get_null(msg, param, res);
	memcpy(buffer, text, len);
	copy.s = buffer;
	copy.len = len;
	return pv_get_strval(msg, param, res, &copy);
}

int shim_pv_null(sip_msg_t *msg, pv_param_t *param, pv_value_t *res)
{
	return pv_get_null(msg, param, res);
}

/* ---- RPC ---- */

int shim_rpc_argument(rpc_t *rpc, void *ctx, str *out)
{
	return rpc->scan(ctx, "S", out) == 1 ? 0 : -1;
}

int shim_rpc_struct(rpc_t *rpc, void *ctx, void **out)
{
	return rpc->add(ctx, "{", out);
}

int shim_rpc_text(rpc_t *rpc, void *st, const char *name, const char *text, int len)
{
	str value = {(char *)text, len};

	return rpc->struct_add(st, "S", name, &value);
}

int shim_rpc_number(rpc_t *rpc, void *st, const char *name, unsigned long value)
{
	return rpc->struct_add(st, "j", name, value);
}

int shim_rpc_list(rpc_t *rpc, void *st, const char *name, void **out)
{
	return rpc->struct_add(st, "[", name, out);
}

int shim_rpc_list_struct(rpc_t *rpc, void *list, void **out)
{
	return rpc->array_add(list, "{", out);
}

void shim_rpc_fault(rpc_t *rpc, void *ctx, int code, const char *text)
{
	rpc->fault(ctx, code, "%s", text);
}

/* ---- requests ---- */

int shim_is_request(sip_msg_t *msg)
{
	return msg->first_line.type == SIP_REQUEST;
}

int shim_request_uri(sip_msg_t *msg, str *out)
{
	if(msg->first_line.type != SIP_REQUEST)
		return -1;
	*out = msg->new_uri.s ? msg->new_uri : msg->first_line.u.request.uri;
	return 0;
}

static void uri_parts(const sip_uri_t *uri, shim_uri_t *out)
{
	out->user = uri->user;
	out->host = uri->host;
	out->port = uri->port_no;
	out->is_sip = uri->type == SIP_URI_T || uri->type == SIPS_URI_T || uri->type == TEL_URI_T
				  || uri->type == TELS_URI_T;
}

int shim_parse_uri(const char *text, int len, shim_uri_t *out)
{
	sip_uri_t uri;

	if(parse_uri((char *)text, len, &uri) < 0)
		return -1;
	uri_parts(&uri, out);
	return 0;
}

static int lies_within(const str *part, const str *whole)
{
	return part->len <= 0 || (part->s >= whole->s && part->s + part->len <= whole->s + whole->len);
}

int shim_request_uri_parts(sip_msg_t *msg, shim_uri_t *out)
{
	str uri;

	if(shim_request_uri(msg, &uri) != 0)
		return -1;
	/* The core keeps what it has parsed until the URI changes; most scripts ask for it, too. Not every module that
	 * changes the URI says so (sca 5.6.3 does not): parts of another text may have been freed. */
	if(!lies_within(&msg->parsed_uri.user, &uri) || !lies_within(&msg->parsed_uri.host, &uri))
		msg->parsed_uri_ok = 0;
	if(parse_sip_msg_uri(msg) < 0)
		return -1;
	uri_parts(&msg->parsed_uri, out);
	return 0;
}

unsigned int shim_method(sip_msg_t *msg)
{
	return msg->first_line.type == SIP_REQUEST ? (unsigned int)msg->REQ_METHOD : 0;
}

int shim_is_initial(sip_msg_t *msg)
{
	const unsigned int methods = METHOD_INVITE | METHOD_MESSAGE | METHOD_SUBSCRIBE | METHOD_NOTIFY | METHOD_REFER
								 | METHOD_OPTIONS;

	return (shim_method(msg) & methods) != 0 && msg->to && msg->to->parsed && get_to(msg)->tag_value.len <= 0;
}

int shim_has_to_tag(sip_msg_t *msg)
{
	if(parse_to_header(msg) < 0)
		return 0;
	return get_to(msg)->tag_value.len > 0;
}

int shim_flag_is_set(sip_msg_t *msg, int flag)
{
	return flag >= 0 && flag_in_range(flag) && isflagset(msg, flag) == 1;
}

int shim_has_header(sip_msg_t *msg, const char *name, int len)
{
	hdr_field_t *header;

	if(parse_headers(msg, HDR_EOH_F, 0) == -1)
		return -1;
	for(header = msg->headers; header; header = header->next) {
		if(header->name.len == len && strncasecmp(header->name.s, name, len) == 0)
			return 1;
	}
	return 0;
}

int shim_append_header(sip_msg_t *msg, const char *line, int len)
{
	struct lump *anchor;
	char *copy;

	if(parse_headers(msg, HDR_EOH_F, 0) == -1)
		return -1;
	anchor = anchor_lump(msg, msg->unparsed - msg->buf, 0, 0);
	if(!anchor)
		return -1;
	copy = pkg_malloc(len);
	if(!copy) {
		PKG_MEM_ERROR;
		return -1;
	}
	memcpy(copy, line, len);
	if(!insert_new_lump_before(anchor, copy, len, 0)) {
		pkg_free(copy);
		return -1;
	}
	return 0;
}

static struct socket_info *own_socket(const str *text)
{
	str copy = *text;

	return copy.len > 0 ? lookup_local_socket(&copy) : NULL;
}

int shim_is_own_address(const char *host, int len, unsigned short port)
{
	str copy = {(char *)host, len};

	return check_self(&copy, port, 0) == 1;
}

/* The next hop of a target: the first URI of its path, else where it was received from, else none. */
static int next_hop(const shim_target_t *target, str *hop, str *path)
{
	hop->s = NULL;
	hop->len = 0;
	*path = target->path;
	if(path->len > 0)
		return get_path_dst_uri(path, hop);
	*hop = target->received;
	return 0;
}

int shim_set_target(sip_msg_t *msg, const shim_target_t *target)
{
	str uri = target->uri, instance = target->instance, agent = target->user_agent;
	str hop, path;
	struct socket_info *socket;
	flag_t flags = 0;

	if(uri.len <= 0 || next_hop(target, &hop, &path) < 0 || rewrite_uri(msg, &uri) < 0)
		return -1;
	/* What an earlier target left would lead this one astray. */
	reset_dst_uri(msg);
	reset_path_vector(msg);
	reset_instance(msg);
	reset_ruid(msg);
	reset_ua(msg);
	if(path.len > 0 && set_path_vector(msg, &path) < 0)
		return -1;
	if(hop.len > 0 && set_dst_uri(msg, &hop) < 0)
		return -1;
	if(instance.len > 0 && set_instance(msg, &instance) < 0)
		return -1;
	msg->reg_id = target->reg_id;
	msg->otcpid = target->tcp_connection;
	if(agent.len > 0 && set_ua(msg, &agent) < 0)
		return -1;
	set_ruri_q(target->q);
	getbflagsval(0, &flags);
	setbflagsval(0, flags | target->flags);
	socket = own_socket(&target->socket);
	if(socket)
		set_force_socket(msg, socket);
	return 0;
}

int shim_add_branch(sip_msg_t *msg, const shim_target_t *target)
{
	str uri = target->uri, instance = target->instance, agent = target->user_agent;
	str hop, path;
	branch_t *branch;

	/* Without a URI the core would repeat the Request-URI. Branches that are full would cost a line of the log each. */
	if(uri.len <= 0 || nr_branches + 1 >= sr_dst_max_branches || next_hop(target, &hop, &path) < 0)
		return -1;
	branch = ksr_push_branch(msg, &uri, hop.len > 0 ? &hop : NULL, path.len > 0 ? &path : NULL, target->q,
			target->flags, own_socket(&target->socket), instance.len > 0 ? &instance : NULL,
			instance.len > 0 ? target->reg_id : 0, NULL, agent.len > 0 ? &agent : NULL);
	if(!branch)
		return -1;
	branch->otcpid = target->tcp_connection;
	return 0;
}

int shim_set_destination(sip_msg_t *msg, const char *uri, int len)
{
	str copy = {(char *)uri, len};

	return set_dst_uri(msg, &copy) < 0 ? -1 : 0;
}

int shim_reply(sip_msg_t *msg, int code, const char *reason, const char *headers, int len)
{
	str text = {(char *)reason, (int)strlen(reason)};
	struct lump_rpl *lump = NULL;

	if(!sl.freply)
		return -1;
	/* add_lump_rpl copies the text unless LUMP_RPL_NODUP is given. */
	if(len > 0 && !(lump = add_lump_rpl(msg, (char *)headers, len, LUMP_RPL_HDR)))
		return -1;
	if(sl.freply(msg, code, &text) >= 0)
		return 0;
	if(lump) {
		unlink_lump_rpl(msg, lump);
		free_lump_rpl(lump);
	}
	return -1;
}

/* ---- REGISTER ---- */

static int fill_contact(
		contact_t *contact, int header_expires, unsigned int allowed, shim_contact_t *out)
{
	unsigned int seconds;
	int q = Q_UNSPECIFIED;

	out->uri = contact->uri;
	out->expires = header_expires;
	/* As registrar: an expires parameter that is no number counts as absent. */
	if(contact->expires && contact->expires->body.len > 0
			&& str2int(&contact->expires->body, &seconds) == 0)
		out->expires = seconds > INT_MAX ? INT_MAX : (int)seconds;
	if(contact->q && contact->q->body.len > 0
			&& str2q(&q, contact->q->body.s, contact->q->body.len) < 0)
		return SHIM_REGISTER_Q;
	out->q = q;
	out->methods = allowed;
	if(contact->methods && parse_methods(&contact->methods->body, &out->methods) < 0)
		return SHIM_REGISTER_METHODS;
	if(contact->instance && contact->instance->body.len > 0) {
		out->instance = contact->instance->body;
		if(contact->reg_id && contact->reg_id->body.len > 0
				&& (str2int(&contact->reg_id->body, &out->reg_id) < 0 || out->reg_id == 0))
			return SHIM_REGISTER_REG_ID;
	}
	return SHIM_REGISTER_OK;
}

static int fill_contacts(sip_msg_t *msg, int header_expires, shim_register_t *view)
{
	hdr_field_t *header;
	contact_body_t *body;
	contact_t *contact;
	unsigned int allowed = ALL_METHODS;
	str text;
	int fault;

	if(parse_allow(msg) != -1)
		allowed = get_allow_methods(msg);
	for(header = msg->contact; header; header = next_sibling_hdr(header)) {
		body = (contact_body_t *)header->parsed;
		if(body->star) {
			if(header_expires != 0)
				return SHIM_REGISTER_STAR_EXPIRES;
			/* Kamailio's parser takes whatever begins with `*` for it. */
			text = header->body;
			trim(&text);
			if(view->star || view->contact_count > 0 || body->contacts || text.len != 1)
				return SHIM_REGISTER_STAR_MIXED;
			view->star = 1;
			continue;
		}
		for(contact = body->contacts; contact; contact = contact->next) {
			if(view->star)
				return SHIM_REGISTER_STAR_MIXED;
			if(view->contact_count == SHIM_CONTACTS_MAX)
				return SHIM_REGISTER_TOO_MANY;
			fault = fill_contact(contact, header_expires, allowed, &view->contacts[view->contact_count]);
			if(fault != SHIM_REGISTER_OK)
				return fault;
			view->contact_count++;
		}
	}
	return SHIM_REGISTER_OK;
}

static int fill_paths(sip_msg_t *msg, shim_register_t *view)
{
	hdr_field_t *header;
	rr_t *route = NULL;
	sip_uri_t uri;
	int loose;

	for(header = msg->path; header; header = next_sibling_hdr(header)) {
		if(view->path_count == SHIM_PATHS_MAX)
			return SHIM_REGISTER_TOO_MANY;
		view->paths[view->path_count] = header->body;
		trim(&view->paths[view->path_count]);
		view->path_count++;
	}
	if(view->path_count == 0)
		return SHIM_REGISTER_OK;
	if(parse_rr_body(view->paths[0].s, view->paths[0].len, &route) < 0 || !route)
		return SHIM_REGISTER_PATH;
	loose = parse_uri(route->nameaddr.uri.s, route->nameaddr.uri.len, &uri) == 0 && uri.lr.s != NULL;
	free_rr(&route);
	return loose ? SHIM_REGISTER_OK : SHIM_REGISTER_PATH;
}

static void fill_source(sip_msg_t *msg, shim_register_t *view)
{
	str source = {0, 0};

	if(get_src_uri(msg, 0, &source) == 0 && source.len > 0 && source.len <= (int)sizeof(view->source)) {
		memcpy(view->source, source.s, source.len);
		view->source_len = source.len;
	}
	if(msg->rcv.bind_address)
		view->socket = msg->rcv.bind_address->sock_str;
	view->tcp_connection = -1;
	if(msg->rcv.proto == PROTO_TCP || msg->rcv.proto == PROTO_TLS || msg->rcv.proto == PROTO_WS
			|| msg->rcv.proto == PROTO_WSS)
		view->tcp_connection = msg->rcv.proto_reserved1;
}

int shim_register(sip_msg_t *msg, shim_register_t *view)
{
	int expires = -1, fault;
	flag_t flags = 0;
	exp_body_t *header;

	memset(view, 0, sizeof(*view));
	if(parse_headers(msg, HDR_EOH_F, 0) == -1)
		return SHIM_REGISTER_HEADERS;
	if(!msg->to || parse_to_header(msg) < 0)
		return SHIM_REGISTER_NO_TO;
	if(!msg->callid)
		return SHIM_REGISTER_NO_CALL_ID;
	if(!msg->cseq || !get_cseq(msg))
		return SHIM_REGISTER_NO_CSEQ;
	if(msg->expires) {
		if(!msg->expires->parsed && parse_expires(msg->expires) < 0)
			return SHIM_REGISTER_EXPIRES;
		header = (exp_body_t *)msg->expires->parsed;
		if(header->valid)
			expires = header->val > INT_MAX ? INT_MAX : (int)header->val;
	}
	if(parse_contact_headers(msg) < 0)
		return SHIM_REGISTER_CONTACT;
	view->to_uri = get_to(msg)->uri;
	view->call_id = msg->callid->body;
	trim(&view->call_id);
	if(str2int(&get_cseq(msg)->number, &view->cseq) < 0)
		return SHIM_REGISTER_CSEQ;
	if(msg->user_agent)
		view->user_agent = msg->user_agent->body;
	if(parse_require(msg) == 0 && (get_require(msg) & F_OPTION_TAG_OUTBOUND))
		return SHIM_REGISTER_OUTBOUND;
	view->supports_path = parse_supported(msg) == 0 && (get_supported(msg) & F_OPTION_TAG_PATH);
	getbflagsval(0, &flags);
	view->branch_flags = flags;
	fill_source(msg, view);
	fault = fill_paths(msg, view);
	return fault != SHIM_REGISTER_OK ? fault : fill_contacts(msg, expires, view);
}

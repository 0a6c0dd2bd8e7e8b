/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 and nothing else, both sides with a certificate that chains to the CAs given; no tickets
 * and no resumption, so that every connection is checked anew. libevent's bufferevent does the
 * reading and writing. In TLS 1.3 the client's handshake is over before the server has looked at
 * its certificate: a refusal reaches the client as an alert where it expects the welcome.
 */
#include "store/tls.h"

#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/tls_files.h"
#include "util/err.h"
#include "util/log.h"

struct tls {
	SSL_CTX *ctx;
	STACK_OF(X509) * seen; /* own and CA certificates */
	unsigned period_hours;
	unsigned ahead_days;
};

void tls_destroy(struct tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx);
	sk_X509_pop_free(tls->seen, X509_free);
	free(tls);
}

/* One certificate of the peer's chain. OpenSSL's verdict, with two changes: a revocation list that
 * is out of date still counts, and weak keys are refused. */
static int verify(int ok, X509_STORE_CTX *store)
{
	int error = X509_STORE_CTX_get_error(store);
	X509 *cert = X509_STORE_CTX_get_current_cert(store);

	if (!ok && error == X509_V_ERR_CRL_HAS_EXPIRED) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	if (ok && cert && !tls_key_strong(X509_get0_pubkey(cert))) {
		X509_STORE_CTX_set_error(store, X509_STORE_CTX_get_error_depth(store) == 0
						    ? X509_V_ERR_EE_KEY_TOO_SMALL
						    : X509_V_ERR_CA_KEY_TOO_SMALL);
		return 0;
	}
	return ok;
}

static int32_t load(struct tls *tls, const struct tls_conf *conf)
{
	SSL_CTX_set_min_proto_version(tls->ctx, TLS1_3_VERSION);
	SSL_CTX_set_max_proto_version(tls->ctx, TLS1_3_VERSION);
	SSL_CTX_set_num_tickets(tls->ctx, 0);
	SSL_CTX_set_session_cache_mode(tls->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(tls->ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(tls->ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
	int32_t r = tls_load_ca(conf, tls->ctx, tls->seen);
	if (r == SMEM_OK)
		r = tls_load_crl(conf, tls->ctx);
	if (r == SMEM_OK)
		r = tls_load_own(conf, tls->ctx, tls->seen);
	return r;
}

int32_t tls_create(const struct tls_conf *conf, struct tls **ret)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return smem_err(SMEM_MALLOC_FAILED, "TLS");
	tls->period_hours = conf->check_period_hours;
	tls->ahead_days = conf->check_ahead_days;
	ERR_clear_error();
	tls->ctx = SSL_CTX_new(TLS_method());
	tls->seen = sk_X509_new_null();
	int32_t r = tls->ctx && tls->seen ? load(tls, conf) : smem_err(SMEM_MALLOC_FAILED, "TLS");
	ERR_clear_error();
	if (r != SMEM_OK) {
		tls_destroy(tls);
		return r;
	}
	tls_watch(tls, time(NULL));
	*ret = tls;
	return SMEM_OK;
}

int32_t tls_from_env(struct tls **ret)
{
	struct tls_conf conf;
	struct tls *tls = NULL;
	bool enabled;

	int32_t r = tls_conf_from_env(&enabled, &conf);
	if (r != SMEM_OK)
		return r;
	if (enabled)
		r = tls_create(&conf, &tls);
	tls_conf_free(&conf);
	if (r == SMEM_OK)
		*ret = tls;
	return r;
}

struct bufferevent *tls_bev_new(struct tls *tls, struct event_base *base, int fd, bool accepting)
{
	SSL *ssl = SSL_new(tls->ctx);

	if (!ssl)
		return NULL;
	struct bufferevent *bev = bufferevent_openssl_socket_new(
	    base, fd, ssl, accepting ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING,
	    BEV_OPT_CLOSE_ON_FREE);
	if (!bev) {
		SSL_free(ssl);
		return NULL;
	}
	/* Frames have their own good-bye; a missing TLS one is an end of file, not an attack. */
	bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

static const char *alert_text(int reason)
{
	switch (reason) {
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return "it does not chain to a CA of the other side, or no revocation list covers "
		       "it";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return "it has expired";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
		return "it is revoked";
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
		return "it is not yet valid, too weak, or damaged";
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
		return "it is not meant for this use";
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "none was sent";
	default:
		return NULL;
	}
}

static bool not_tls(int reason)
{
	return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
	       reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_PACKET_LENGTH_TOO_LONG ||
	       reason == SSL_R_RECORD_LENGTH_MISMATCH || reason == SSL_R_BAD_RECORD_TYPE ||
	       reason == SSL_R_UNEXPECTED_MESSAGE;
}

enum tls_failure tls_bev_failure(struct bufferevent *bev, char *text, size_t cap)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	unsigned long error = bufferevent_get_openssl_error(bev);

	if (!ssl || error == 0)
		return TLS_NO_FAILURE;
	int reason = ERR_GET_REASON(error);
	long verdict = SSL_get_verify_result(ssl);
	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK)
		snprintf(text, cap, "the other side's certificate is refused: %s",
			 X509_verify_cert_error_string(verdict));
	else if (alert_text(reason))
		snprintf(text, cap, "the other side refused this side's certificate: %s",
			 alert_text(reason));
	else if (not_tls(reason))
		snprintf(text, cap, "the other side does not speak TLS");
	else
		snprintf(text, cap, "TLS failed: %s",
			 ERR_reason_error_string(error) ? ERR_reason_error_string(error)
							: "unknown reason");
	while (bufferevent_get_openssl_error(bev))
		;
	return not_tls(reason) ? TLS_ALIEN : TLS_FAILED;
}

void tls_watch(const struct tls *tls, time_t now)
{
	time_t ahead = now + (time_t)tls->ahead_days * 24 * 3600;

	for (int i = 0; i < sk_X509_num(tls->seen); i++) {
		X509 *cert = sk_X509_value(tls->seen, i);
		const ASN1_TIME *end = X509_get0_notAfter(cert);
		char name[256];
		X509_NAME_oneline(X509_get_subject_name(cert), name, sizeof(name));
		if (X509_cmp_time(end, &now) < 0)
			LOG_ERROR("store", "TLS: certificate %s has expired", name);
		else if (X509_cmp_time(end, &ahead) < 0)
			LOG_WARN("store", "TLS: certificate %s expires within %u days", name,
				 tls->ahead_days);
	}
}

uint64_t tls_watch_period_ms(const struct tls *tls)
{
	return (uint64_t)tls->period_hours * 3600 * 1000;
}

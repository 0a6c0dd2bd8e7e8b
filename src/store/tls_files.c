/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are read whole into memory, with a limit, and parsed from there: one way to say what is
 * wrong with which file. Whatever held a secret is overwritten before it is freed.
 */
#include "store/tls_files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/decrypt.h"
#include "util/err.h"
#include "util/log.h"

#define FILE_MAX  (10u << 20)
#define PLAIN_MIN 1024

struct content {
	char *data; /* zero-terminated */
	size_t len;
};

static void content_free(struct content *c)
{
	if (c->data)
		OPENSSL_cleanse(c->data, c->len);
	free(c->data);
	c->data = NULL;
}

static int32_t file_open(const char *path, struct stat *st, int *ret)
{
	auto_fd int fd = fd_own(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));

	if (fd < 0 || fstat(fd, st) != 0)
		return smem_errno(SMEM_SECURITY, errno, "TLS: cannot read %s", path);
	if (!S_ISREG(st->st_mode))
		return smem_err(SMEM_SECURITY, "TLS: %s is not a regular file", path);
	if (st->st_size > FILE_MAX)
		return smem_err(SMEM_SECURITY, "TLS: %s is longer than 10 MiB", path);
	*ret = take_fd(&fd);
	return SMEM_OK;
}

static int32_t file_read(const char *path, struct content *ret)
{
	struct stat st;
	auto_fd int fd = -1;

	int32_t r = file_open(path, &st, &fd);
	if (r != SMEM_OK)
		return r;
	struct content c = {.data = calloc(1, (size_t)st.st_size + 1)};
	if (!c.data)
		return smem_err(SMEM_MALLOC_FAILED, "TLS: %s", path);
	while (c.len < (size_t)st.st_size) {
		ssize_t n = read(fd, c.data + c.len, (size_t)st.st_size - c.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = smem_errno(SMEM_SECURITY, errno, "TLS: cannot read %s", path);
			content_free(&c);
			return r;
		}
		if (n == 0)
			break;
		c.len += (size_t)n;
	}
	*ret = c;
	return SMEM_OK;
}

bool tls_key_strong(EVP_PKEY *key)
{
	if (!key)
		return false;
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
	case EVP_PKEY_RSA_PSS:
		return EVP_PKEY_get_bits(key) >= 2048;
	case EVP_PKEY_EC:
	case EVP_PKEY_ED25519:
	case EVP_PKEY_ED448:
		return EVP_PKEY_get_bits(key) >= 253; /* Ed25519 counts 253 */
	default:
		return false;
	}
}

const char *tls_cert_wrong(X509 *cert)
{
	if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
		return "is not yet valid";
	if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
		return "has expired";
	if (!tls_key_strong(X509_get0_pubkey(cert)))
		return "has a key that is too weak (RSA from 2048 bits, elliptic curves from 256)";
	return NULL;
}

/* Every certificate of a PEM file through `use`; `want` of them at least one. */
typedef int32_t (*cert_fn)(void *arg, const char *path, X509 *cert, unsigned index);

static int32_t certs_each(const char *path, cert_fn use, void *arg)
{
	struct content c = {.data = NULL};
	unsigned count = 0;

	int32_t r = file_read(path, &c);
	if (r != SMEM_OK)
		return r;
	BIO *bio = BIO_new_mem_buf(c.data, (int)c.len);
	X509 *cert;
	while (r == SMEM_OK && bio && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		r = use(arg, path, cert, count++);
		X509_free(cert);
	}
	ERR_clear_error();
	if (r == SMEM_OK && count == 0)
		r = smem_err(SMEM_SECURITY, "TLS: %s holds no certificate in PEM", path);
	BIO_free(bio);
	content_free(&c);
	return r;
}

/* Every file of a comma list below a directory through `use`. */
static int32_t list_each(const char *dir, const char *list,
			 int32_t (*use)(void *arg, const char *path), void *arg)
{
	struct stat st;
	unsigned count = 0;
	int32_t r = SMEM_OK;

	if (stat(dir, &st) != 0)
		return smem_errno(SMEM_SECURITY, errno, "TLS: directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return smem_err(SMEM_SECURITY, "TLS: %s is not a directory", dir);
	while (r == SMEM_OK && *list) {
		char path[PATH_MAX];
		size_t len = strcspn(list, ",");
		const char *name = list;
		list += len + (list[len] == ',');
		while (len && isspace((unsigned char)*name)) {
			name++;
			len--;
		}
		while (len && isspace((unsigned char)name[len - 1]))
			len--;
		if (len == 0)
			continue;
		if (memchr(name, '/', len))
			return smem_err(SMEM_SECURITY, "TLS: file name %.*s has a '/'", (int)len,
					name);
		if (snprintf(path, sizeof(path), "%s/%.*s", dir, (int)len, name) >=
		    (int)sizeof(path))
			return smem_err(SMEM_SECURITY, "TLS: a path below %.200s is too long", dir);
		count++;
		r = use(arg, path);
	}
	if (r == SMEM_OK && count == 0)
		r = smem_err(SMEM_SECURITY, "TLS: the list of files below %s is empty", dir);
	return r;
}

struct loading {
	SSL_CTX *ctx;
	STACK_OF(X509) * seen; /* for the expiry watch */
};

static int32_t seen_add(struct loading *l, X509 *cert)
{
	if (!X509_up_ref(cert))
		return smem_err(SMEM_MALLOC_FAILED, "TLS: certificate");
	if (sk_X509_push(l->seen, cert) <= 0) {
		X509_free(cert);
		return smem_err(SMEM_MALLOC_FAILED, "TLS: certificate");
	}
	return SMEM_OK;
}

static int32_t use_ca(void *arg, const char *path, X509 *cert, unsigned index)
{
	struct loading *l = arg;
	const char *wrong = tls_cert_wrong(cert);

	(void)index;
	if (wrong)
		return smem_err(SMEM_SECURITY, "TLS: CA certificate %s %s", path, wrong);
	if (X509_STORE_add_cert(SSL_CTX_get_cert_store(l->ctx), cert) != 1)
		return smem_err(SMEM_SECURITY, "TLS: CA certificate %s cannot be used", path);
	return seen_add(l, cert);
}

static int32_t use_ca_file(void *arg, const char *path)
{
	return certs_each(path, use_ca, arg);
}

int32_t tls_load_ca(const struct tls_conf *conf, SSL_CTX *ctx, STACK_OF(X509) * seen)
{
	struct loading l = {.ctx = ctx, .seen = seen};

	return list_each(conf->value[TLS_CA_PATH], conf->value[TLS_CA_FILE], use_ca_file, &l);
}

static int32_t use_crl_file(void *arg, const char *path)
{
	struct loading *l = arg;
	struct content c = {.data = NULL};
	unsigned count = 0;
	X509_CRL *crl;

	int32_t r = file_read(path, &c);
	if (r != SMEM_OK)
		return r;
	BIO *bio = BIO_new_mem_buf(c.data, (int)c.len);
	while (r == SMEM_OK && bio && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
		const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
		count++;
		if (next && X509_cmp_current_time(next) < 0)
			LOG_WARN("store", "TLS: revocation list %s is out of date, still applied",
				 path);
		if (X509_STORE_add_crl(SSL_CTX_get_cert_store(l->ctx), crl) != 1)
			r = smem_err(SMEM_SECURITY, "TLS: revocation list %s cannot be used", path);
		X509_CRL_free(crl);
	}
	ERR_clear_error();
	if (r == SMEM_OK && count == 0)
		r = smem_err(SMEM_SECURITY, "TLS: %s holds no revocation list in PEM", path);
	BIO_free(bio);
	content_free(&c);
	return r;
}

int32_t tls_load_crl(const struct tls_conf *conf, SSL_CTX *ctx)
{
	struct loading l = {.ctx = ctx};

	if (!conf->value[TLS_CRL_PATH])
		return SMEM_OK;
	int32_t r =
	    list_each(conf->value[TLS_CRL_PATH], conf->value[TLS_CRL_FILE], use_crl_file, &l);
	if (r == SMEM_OK)
		X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx),
				     X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return r;
}

/* ---- own certificate and key ---- */

static int32_t use_own(void *arg, const char *path, X509 *cert, unsigned index)
{
	struct loading *l = arg;
	const char *wrong = tls_cert_wrong(cert);

	if (wrong)
		return smem_err(SMEM_SECURITY, "TLS: certificate %s %s", path, wrong);
	int ok = index == 0 ? SSL_CTX_use_certificate(l->ctx, cert)
			    : SSL_CTX_add1_chain_cert(l->ctx, cert);
	if (ok != 1)
		return smem_err(SMEM_SECURITY, "TLS: certificate %s cannot be used: %s", path,
				ERR_reason_error_string(ERR_peek_last_error()));
	return seen_add(l, cert);
}

/* The pass phrase as it stands in the file, without white space around. */
static void content_trim(struct content *c)
{
	size_t begin = 0, end = c->len;

	while (begin < end && isspace((unsigned char)c->data[begin]))
		begin++;
	while (end > begin && isspace((unsigned char)c->data[end - 1]))
		end--;
	memmove(c->data, c->data + begin, end - begin);
	OPENSSL_cleanse(c->data + (end - begin), c->len - (end - begin));
	c->len = end - begin;
}

static int32_t decrypt(smem_decrypt_handler handler, const char *path, struct content *phrase)
{
	size_t cap = 2 * phrase->len > PLAIN_MIN ? 2 * phrase->len : PLAIN_MIN;
	struct content plain = {.data = calloc(1, cap + 1), .len = cap};
	int cipher_len = (int)phrase->len, plain_len = (int)cap;

	if (!plain.data)
		return smem_err(SMEM_MALLOC_FAILED, "TLS: %s", path);
	int code = handler(phrase->data, &cipher_len, plain.data, &plain_len);
	if (code != 0 || plain_len <= 0 || plain_len > (int)cap) {
		content_free(&plain);
		return smem_err(SMEM_SECURITY,
				"TLS: the decrypt handler failed for %s: code %d, length %d", path,
				code, plain_len);
	}
	content_free(phrase);
	*phrase = (struct content){.data = plain.data, .len = (size_t)plain_len};
	return SMEM_OK;
}

static int32_t phrase_read(const struct tls_conf *conf, struct content *ret)
{
	const char *path = conf->value[TLS_PK_PWD];
	smem_decrypt_handler handler = decrypt_get();
	struct content c = {.data = NULL};

	if (!path)
		return SMEM_OK;
	int32_t r = file_read(path, &c);
	if (r == SMEM_OK) {
		content_trim(&c);
		if (handler)
			r = decrypt(handler, path, &c);
	}
	if (r != SMEM_OK)
		content_free(&c);
	else
		*ret = c;
	return r;
}

struct asking {
	const struct content *phrase;
	bool asked;
};

static int give_phrase(char *buf, int size, int writing, void *arg)
{
	struct asking *a = arg;

	(void)writing;
	a->asked = true;
	if (!a->phrase->data || a->phrase->len > (size_t)size)
		return -1;
	memcpy(buf, a->phrase->data, a->phrase->len);
	return (int)a->phrase->len;
}

static int32_t key_parse(const char *path, const struct content *pem, const struct content *phrase,
			 EVP_PKEY **ret)
{
	struct asking asking = {.phrase = phrase};
	BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_phrase, &asking) : NULL;

	BIO_free(bio);
	ERR_clear_error();
	if (key) {
		*ret = key;
		return SMEM_OK;
	}
	if (asking.asked && !phrase->data)
		return smem_err(SMEM_SECURITY,
				"TLS: key %s is encrypted, and tlsPkPwd is not given", path);
	if (asking.asked)
		return smem_err(SMEM_SECURITY, "TLS: wrong pass phrase for key %s", path);
	return smem_err(SMEM_SECURITY, "TLS: %s holds no private key in PEM", path);
}

static int32_t key_read(const char *path, struct content *ret)
{
	struct stat st;
	auto_fd int fd = -1;

	int32_t r = file_open(path, &st, &fd);
	if (r != SMEM_OK)
		return r;
	if (st.st_mode & (S_IROTH | S_IWOTH))
		return smem_err(SMEM_SECURITY,
				"TLS: key %s can be read or written by others (mode %03o): "
				"chmod o-rw it",
				path, (unsigned)st.st_mode & 0777);
	return file_read(path, ret);
}

static int32_t use_key(SSL_CTX *ctx, const struct tls_conf *conf, EVP_PKEY *key)
{
	const char *path = conf->value[TLS_PK];

	if (!tls_key_strong(key))
		return smem_err(SMEM_SECURITY,
				"TLS: key %s is too weak (RSA from 2048 bits, elliptic curves from "
				"256)",
				path);
	if (X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) != 1) {
		ERR_clear_error();
		return smem_err(SMEM_SECURITY, "TLS: key %s does not match certificate %s", path,
				conf->value[TLS_CERT]);
	}
	if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
		return smem_err(SMEM_SECURITY, "TLS: key %s cannot be used: %s", path,
				ERR_reason_error_string(ERR_peek_last_error()));
	return SMEM_OK;
}

int32_t tls_load_own(const struct tls_conf *conf, SSL_CTX *ctx, STACK_OF(X509) * seen)
{
	struct loading l = {.ctx = ctx, .seen = seen};
	struct content pem = {.data = NULL}, phrase = {.data = NULL};
	EVP_PKEY *key = NULL;

	int32_t r = certs_each(conf->value[TLS_CERT], use_own, &l);
	if (r == SMEM_OK)
		r = key_read(conf->value[TLS_PK], &pem);
	if (r == SMEM_OK)
		r = phrase_read(conf, &phrase);
	if (r == SMEM_OK)
		r = key_parse(conf->value[TLS_PK], &pem, &phrase, &key);
	if (r == SMEM_OK)
		r = use_key(ctx, conf, key);
	EVP_PKEY_free(key);
	content_free(&pem);
	content_free(&phrase);
	return r;
}

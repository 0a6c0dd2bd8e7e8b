/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes between two processes beside the data: the address that travels through the store, and
 * the messages of the control connection. Version first, fixed widths, little-endian.
 *
 * Nothing that opens memory crosses the control connection in the clear: a peer proves that it
 * knows the process's key and a region's secret by codes over both sides' nonces, and memory keys
 * are masked with such a code.
 */
#ifndef TRANSPORT_OFI_WIRE_H
#define TRANSPORT_OFI_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define OFI_VERSION  1u
#define OFI_MAGIC    0x534d4646u
#define OFI_HOSTS    6u	  /* addresses a process can be told at; most have one or two */
#define OFI_EP_ADDR  128u /* bytes of a provider's endpoint address; the longest known have 56 */
#define OFI_PROVIDER 32u
#define OFI_TEXT     160u
#define OFI_CODE     32u /* bytes of an authentication code, HMAC-SHA256 */
#define OFI_PROBE    32u /* bytes that a new connection reads to prove itself */

struct ofi_host {	 /* where a control connection can be made */
	uint16_t family; /* 4 or 6 */
	uint16_t port;	 /* host order */
	uint8_t addr[16];
};
_Static_assert(sizeof(struct ofi_host) == 20, "wire layout");

struct ofi_card { /* a process's address, for peers, through the store */
	uint32_t version;
	uint32_t hosts;
	uint64_t token; /* random, of this start of the transport */
	uint8_t key[32];
	struct ofi_host host[OFI_HOSTS];
};
_Static_assert(sizeof(struct ofi_card) == 168, "wire layout");

enum ofi_type {
	OFI_CHALLENGE = 1, /* target -> initiator, first */
	OFI_HELLO,	   /* initiator: who it is, which provider */
	OFI_READY,	   /* target: its endpoint, or why not */
	OFI_RESOLVE,	   /* initiator: which region holds this address? */
	OFI_REGION,	   /* target: that one, and its key */
	OFI_REVOKE,	   /* target: use this region no more */
	OFI_REVOKED,	   /* initiator: nothing of mine is in flight to it any more */
	OFI_CUT,	   /* initiator: close your endpoint for me */
	OFI_CUT_DONE,	   /* target: closed, nothing lands any more */
	OFI_PING,	   /* initiator: something is in flight; are you there? */
	OFI_PONG,	   /* target: yes, and this often has my thread looked since it began */
	OFI_TYPES
};

struct ofi_head {
	uint32_t len; /* of the whole message */
	uint16_t type;
	uint16_t zero;
};

struct ofi_challenge {
	uint32_t magic;
	uint32_t version;
	uint64_t token;
	uint8_t nonce[16];
};
_Static_assert(sizeof(struct ofi_challenge) == 32, "wire layout");

struct ofi_hello {
	uint8_t nonce[16];
	uint8_t code[OFI_CODE]; /* of the key: "hello" */
	char provider[OFI_PROVIDER];
	uint32_t addr_len;
	uint32_t silence_ms; /* of the initiator; the target gives up in half of it */
	uint8_t addr[OFI_EP_ADDR];
};
_Static_assert(sizeof(struct ofi_hello) == 216, "wire layout");

struct ofi_ready {
	uint8_t code[OFI_CODE]; /* of the key: "ready" */
	int32_t result;
	uint32_t addr_len;
	uint64_t probe_key;  /* masked */
	uint64_t probe_addr; /* as RMA wants it */
	uint8_t addr[OFI_EP_ADDR];
	char text[OFI_TEXT];
};
_Static_assert(sizeof(struct ofi_ready) == 344, "wire layout");

struct ofi_resolve {
	uint64_t seq;
	uint64_t addr;
	uint8_t code[OFI_CODE]; /* of the secret: "open" */
};
_Static_assert(sizeof(struct ofi_resolve) == 48, "wire layout");

struct ofi_region {
	uint64_t seq;
	uint64_t id;
	uint64_t begin, end; /* addresses of the peer */
	uint64_t rma;	     /* what RMA calls `begin` */
	uint64_t key;	     /* masked */
	int32_t result;
	uint32_t writable;
};
_Static_assert(sizeof(struct ofi_region) == 56, "wire layout");

struct ofi_id {
	uint64_t id;
};

struct ofi_pulse {
	uint64_t sent_ns; /* by the clock of who asked; 0: nobody did */
	uint64_t turns;
};

struct ofi_msg {
	struct ofi_head head;
	union {
		struct ofi_challenge challenge;
		struct ofi_hello hello;
		struct ofi_ready ready;
		struct ofi_resolve resolve;
		struct ofi_region region;
		struct ofi_id id;
		struct ofi_pulse pulse;
	};
};

/* Bytes of a whole message of this type; 0: no such type. */
size_t ofi_msg_size(unsigned type);
/*
 * A message at the start of `buf`: its length; 0: not all there yet; -1: this is no message of
 * ours.
 */
int ofi_msg_parse(const void *buf, size_t len, struct ofi_msg *ret);

/* Believes nothing. False: not a card of this version. */
bool ofi_card_parse(const void *buf, size_t len, struct ofi_card *ret);

void ofi_host_put(struct ofi_host *h, const struct sockaddr *sa, uint16_t port);
socklen_t ofi_host_get(const struct ofi_host *h, struct sockaddr_storage *ret);
/* "10.0.0.1:77", "[fd00::1]:77"; without the port when `port` is false. */
const char *ofi_sockaddr_text(const struct sockaddr *sa, bool port, char *buf, size_t cap);

/* The two sides' nonces; both know them after the hello. */
struct ofi_nonces {
	uint8_t target[16], initiator[16];
};

/* code = HMAC(key, label, nonces, extra). */
void ofi_code(const void *key, size_t key_len, const char *label, const struct ofi_nonces *n,
	      uint64_t extra, uint8_t ret[OFI_CODE]);
bool ofi_code_equal(const uint8_t a[OFI_CODE], const uint8_t b[OFI_CODE]);
/* Mask and unmask a memory key. */
uint64_t ofi_mask(const void *key, size_t key_len, const struct ofi_nonces *n, uint64_t extra,
		  uint64_t value);

#endif

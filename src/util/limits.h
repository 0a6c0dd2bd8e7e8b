/* SPDX-License-Identifier: Apache-2.0 */
/* Every number that limits something, with its reason. */
#ifndef UTIL_LIMITS_H
#define UTIL_LIMITS_H

#define WORLD_MAX 1024u /* ranks of a world, a pool, a symmetric object: the API's own limit */

#define SLOT_ALIGN (2ull << 20) /* slots are whole huge pages */
#define SLOT_MAX   (4ull << 30) /* the API's own limit of a rank's contribution */

/* Address ranges a session's table shows; the table's memfd is sparse and this large from the start
 * (2 x 512 MiB of addresses, no memory), so that no peer ever remaps it. */
#define REGION_SPANS_MAX (1u << 24)
/* Shared files that a session offers to its peers at a time; the low bits of their numbers. */
#define BACKINGS_MAX (1u << 16)
/* Writes and reads in flight to one session of this host; 16 MiB of addresses, sparse too. */
#define MARK_SLOTS_MAX (1u << 18)

#define EXTRA_CONTEXT_MAX 65536u /* the API's own limits */
#define ALLGATHER_MAX	  65536u

/* Bytes of a key or name: ours are below 64, users' session names below 300. */
#define STORE_KEY_MAX	512u
#define STORE_VALUE_MAX (1u << 20) /* bytes of a value */
/* A gather of 1024 x 64 KiB in one reply, and its heads. */
#define STORE_FRAME_MAX (80u << 20)
/* The longest request: two values, their names and heads. */
#define STORE_REQUEST_MAX (4u << 20)

/* What one rank contributes for all ranks of its host: all but one of a world, at worst. */
#define STORE_SET_VALUE_MAX   (WORLD_MAX * (ALLGATHER_MAX + 4u))
#define STORE_SET_REQUEST_MAX (STORE_SET_VALUE_MAX + 4096u)

/* One client of the store: a process with thousands of objects stays far below. Requests that wait
 * (one per blocked thread); memberships, ranges and watches; values it made, and their bytes;
 * intervals in its list of usable ranges. */
#define STORE_CLIENT_WAITS_MAX	4096u
#define STORE_CLIENT_THINGS_MAX 16384u
#define STORE_CLIENT_KEYS_MAX	(1u << 20)
#define STORE_CLIENT_BYTES_MAX	(256u << 20)
#define STORE_CLIENT_USABLE_MAX 256u
/* Bytes it has not acknowledged (two of the largest replies); beyond this it is cut off. Unsent
 * bytes above which none of its requests is read before it takes its replies. */
#define STORE_CLIENT_QUEUE_MAX (160u << 20)
#define STORE_CLIENT_BACKLOG   (1u << 20)

/* All clients of a store together. Connections: 1024 ranks of three services each, and room. */
#define STORE_CLIENTS_MAX 8192u
#define STORE_KEYS_MAX	  (4u << 20)
#define STORE_BYTES_MAX	  (1u << 30)
#define STORE_ROUNDS_MAX                                                                           \
	(1u << 30)		   /* what waits in rounds for sets of members, and outcomes kept */
#define STORE_QUEUE_MAX (1u << 30) /* unacknowledged; beyond it the longest queue is cut off */
/* Failed attempts whose late comers are still told; beyond it they time out. */
#define STORE_REFUSALS_MAX 1024u
#define STORE_RANGES_MAX   65536u /* a new one looks at all of them */
#define STORE_ENTERING_MAX 2048u  /* that wait to enter one group: two lives of the largest */
#define STORE_FAILURES_MAX 1024u  /* failed acknowledgements kept per group: one a member */

#define STORE_SURVEYS_MAX      8u	   /* at a time: each is work for every client */
#define STORE_SURVEY_BYTES_MAX (64u << 20) /* answers to one, in equal parts: one reply */
#define STORE_SURVEY_HELD_MAX  64u	   /* names told of a client that does not answer */

/* Bytes of a text in an answer, and how many one answer has: eight reasons for each of 1024 peers.
 */
#define SURVEY_TEXT_MAX	 512u
#define SURVEY_TEXTS_MAX 8192u

#define STORE_HELLO_MS	    5000  /* a connection that has not said hello by then is cut */
#define STORE_FRAME_MS	    30000 /* a frame that has begun must be complete by then */
#define STORE_GRACE_MS	    400	 /* after an end of file, how long a client may take to come back */
#define STORE_PORT_RETRY_MS 2000 /* how long a taken port is tried again */
#define STORE_LINGER_MS	    5000 /* how long a closing server serves the clients it has */

#define AGENT_CLIENTS_MAX                                                                          \
	4096 /* a world has 1024 ranks, on one host at worst; and some to come back */
#define AGENT_HELLO_MS	  5000 /* a connection that has not said hello by then is cut */
#define AGENT_STRIKES_MAX 16   /* refused requests before a client is cut; a race costs one */
#define AGENT_FETCHES_MAX                                                                          \
	64 /* requests in flight on one connection: they fit a socket's buffer                     \
	    */

#define STORE_CREATE_MS 5000  /* to host a store by hand: the port is waited for less than that */
#define INIT_LINGER_MS	1000  /* as STORE_LINGER_MS, after an init that failed */
#define JOIN_UNDO_MS	1000  /* a failed join tells the others for so long after its deadline */
#define DESTROY_ACK_MS	5000  /* how long destroy and uninit wait for live members */
#define KEEPER_OPEN_MS	10000 /* mapping a newcomer; one that is stopped holds up the next */

#define OFI_CLIENTS_MAX	    4096u /* peers of other hosts with a connection to this process */
#define OFI_HELLO_MS	    15000 /* a connection that has not said hello by then is cut */
#define OFI_KEEPALIVE_MS    2500  /* a shorter silence is too short for the kernel's keepalive */
#define OFI_BUSY_MS	    10000 /* what a handshake may take at a host that is busy */
#define OFI_WITHDRAW_ASK_MS 1000  /* what a peer may take to let go of a withdrawn region */
/* Registrations of local memory kept for one peer, where a provider wants them: how many, bytes
 * together, and of one. They pin pages, as the keys of the same regions do once a peer asks. */
#define OFI_LOCAL_REGS	64u
#define OFI_LOCAL_BYTES (16ull << 30)
#define OFI_LOCAL_SPAN	(1ull << 30)
/* Bytes of one operation: small copies wait no longer. TCP with BBR stalls within large ones. */
#define OFI_CHUNK     (4u << 20)
#define OFI_CHUNK_BBR (512u << 10)
/* Pieces up to this size go through a buffer where that saves operations, and the size of the
 * buffer: below both it is the operations that cost, above it the copies. */
#define OFI_STAGE_PIECE 4096u
/* What a read takes along between pieces however small: it costs less than an operation. */
#define OFI_STAGE_GAP 256u
#define OFI_STAGE     (64u << 10)
#define OFI_WINDOW    (32u << 20) /* bytes in flight to one peer */
#define OFI_OPS	      64u	  /* operations in flight to one peer: below any provider's queue */

#endif

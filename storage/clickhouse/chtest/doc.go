// Package chtest gives tests a real ClickHouse. It looks, in this order, for
//
//  1. LUMINATE_TEST_CLICKHOUSE, the DSN of a server that is already running;
//  2. a `clickhouse` binary in PATH, started in a temporary folder;
//  3. the engine as a library (libchdb.so, fetched once with npm), served behind the
//     native protocol by the command chserver, a process of its own.
//
// DSN and Start share one server in a test process and give every test a database
// of its own; Own starts a private server that a test may kill and restart. With
// none of the three at hand tests are skipped, loudly; with
// LUMINATE_TEST_REQUIRE_CLICKHOUSE=1 they fail instead.
//
// What the library cannot do, and so no test here proves: Keeper (Replicated tables,
// ON CLUSTER), system.query_log, asynchronous inserts. Passwords and TLS are chserver's
// own (OwnSecure).
package chtest

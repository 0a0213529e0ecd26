// Command luminate-bench measures Luminate and its peers on the same bytes.
//
//	luminate-bench compare   ingest, memory, disk and queries, on Badger, on ClickHouse, beside Prometheus
//	luminate-bench load      sends a generated workload to a running server
//	luminate-bench soak      writes a known function of time and checks every read
//	luminate-bench parts     several servers before one ClickHouse, and its active parts
//	luminate-bench clickhouse  runs the ClickHouse of the tests and prints its DSN
//	luminate-bench chaos     kills, cuts, fills, floods and damages a server and checks its promises
//
// Requests are encoded before the clock starts; a server's cost is its own CPU
// time from /proc, so that the client and the neighbours do not count.
package main

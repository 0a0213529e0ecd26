// Package wire serves ClickHouse's native TCP protocol in front of the engine as a
// library, as far as clickhouse-go uses it.
//
// The engine reads and writes FORMAT Native at revision 0, the client speaks the
// announced revision; so every block is walked column by column, which adds or
// drops the custom-serialization byte of each column and finds the end of a block
// in an INSERT. Every query carries a marker comment by which it can be killed when
// its client cancels or goes away.
package wire

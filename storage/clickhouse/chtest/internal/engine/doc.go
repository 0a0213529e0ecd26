// Package engine binds libchdb.so, ClickHouse in one process, without cgo.
//
// A query blocks the OS thread it runs on; buffers handed to C live on the heap,
// because a goroutine's stack may move between taking an address as a uintptr and
// entering C. The library resets Go's signal handlers when it connects: they are
// saved and put back.
package engine

//go:build cluster

package clickhouse_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/storagetest"
)

// What `make e2e-cluster` brings up. LUMINATE_TEST_CLUSTER_SHARDS and
// LUMINATE_TEST_CLUSTER name another: the servers of each shard, separated by blanks.
const (
	clusterShards = "127.0.0.1:9101,127.0.0.1:9102 127.0.0.1:9103,127.0.0.1:9104"
	clusterName   = "luminate"
)

// cluster makes a database on every server and returns a configuration for it.
func cluster(t testing.TB, database string) clickhouse.Config {
	t.Helper()
	shards, name := os.Getenv("LUMINATE_TEST_CLUSTER_SHARDS"), os.Getenv("LUMINATE_TEST_CLUSTER")
	if shards == "" {
		shards = clusterShards
	}
	if name == "" {
		name = clusterName
	}
	var dsns []string
	for hosts := range strings.FieldsSeq(shards) {
		// Both replicas have a block before it is acknowledged: either may be read.
		dsns = append(dsns, "clickhouse://default@"+hosts+"/"+database+"?insert_quorum=2")
	}
	o, err := driver.ParseDSN(strings.Replace(dsns[0], "/"+database, "/default", 1))
	if err != nil {
		t.Fatal(err)
	}
	c, err := driver.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, stmt := range []string{"DROP DATABASE IF EXISTS %s ON CLUSTER %s SYNC", "CREATE DATABASE %s ON CLUSTER %s"} {
		if err := c.Exec(context.Background(), fmt.Sprintf(stmt, database, name)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := testConfig(dsns...)
	cfg.Cluster = name
	return cfg
}

// TestCluster runs the suite over Replicated tables: two shards, two replicas, Keeper.
func TestCluster(t *testing.T) {
	n := 0
	storagetest.Run(t, func(t testing.TB) storage.Store {
		n++
		return open(t, cluster(t, fmt.Sprintf("luminate_cluster_%d", n)))
	}, storagetest.Options{RandomOps: 30})
}

package clickhouse

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	promlabels "github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("%s differs; run the test with -update and read the change:\n%s", path, got)
	}
}

func goldenConfig() Config {
	c := DefaultConfig()
	c.DSN = "clickhouse://host:9000/luminate"
	return c
}

func TestSchemaText(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"schema.golden.sql":         func(*Config) {},
		"schema_fsync.golden.sql":   func(c *Config) { c.FsyncInserts = true },
		"schema_cluster.golden.sql": func(c *Config) { c.Cluster = "metrics" },
	} {
		cfg := goldenConfig()
		change(&cfg)
		stmts, err := SchemaPrint(cfg)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, strings.Join(stmts, ";\n\n")+";\n")
	}
}

// textStore builds statements and never runs them.
func textStore() *Store { return &Store{cfg: goldenConfig(), locality: "customer_id"} }

func mustMatcher(t testing.TB, typ promlabels.MatchType, name, value string) *storage.Matcher {
	t.Helper()
	m, err := promlabels.NewMatcher(typ, name, value)
	if err != nil {
		t.Skip(err)
	}
	return m
}

// textsFor returns the statements that a value can come near to.
func textsFor(t testing.TB, tenant storage.Tenant, metric, name, value string) string {
	s := textStore()
	types := []promlabels.MatchType{promlabels.MatchEqual, promlabels.MatchNotEqual, promlabels.MatchRegexp, promlabels.MatchNotRegexp}
	ms := []*storage.Matcher{mustMatcher(t, promlabels.MatchEqual, storage.MetricName, metric)}
	for _, typ := range types {
		v := value
		if typ == promlabels.MatchRegexp || typ == promlabels.MatchNotRegexp {
			v = ".*" + regexp.QuoteMeta(value) + ".*" // never a set of literals
		}
		ms = append(ms, mustMatcher(t, typ, name, v))
	}
	var p params
	where := s.seriesWhere(&p, tenant, ms, 0, 1)
	out := []string{
		render("read/series", fragments{"Where": where, "Limit": p.i64(1)}),
		render("read/series_days", fragments{"Where": where}),
		render("read/label_values", fragments{"Where": where, "Value": valueOf(&p, name), "Limit": p.i64(1)}),
		render("read/samples", fragments{"Where": s.where(&p, selection{tenant: tenant, matchers: ms}, rowFilter{metrics: []string{metric}, locs: []uint32{1}, ids: []uint64{2}, match: true}), "Order": keyOrder(rowFilter{})}),
		render("write/delete_rows", fragments{"Table": "series", "OnCluster": "", "Where": where}),
	}
	// Each statement counts its parameters anew.
	sel := selection{tenant: tenant, matchers: ms, metric: metric, one: true, maxt: 1}
	for _, g := range []storage.Grid{{Grouping: []string{name}}, {Grouping: []string{name, "fixed"}, Without: true}} {
		var p params
		e := &evaluation{s: s, g: &g, sel: sel}
		x := &part{whole: true, metrics: []string{metric}, roster: &roster{locs: []uint32{1, 2, 3}, ids: []uint64{4, 5, 6}}}
		out = append(out,
			render("evaluate/few", fragments{"Group": e.group(&p), "Where": s.seriesWhere(&p, tenant, ms, 0, 1), "Limit": p.i64(1)}),
			render("evaluate/groups", fragments{"Group": e.group(&p), "Where": s.matcherSQL(&p, tenant, ms) + dayWhere(&p, dayRange{1, 2})}),
			render("evaluate/roster", fragments{"Where": e.metricWhere(&p) + dayWhere(&p, dayRange{1, 2})}),
			render("evaluate/samples", fragments{"Time": "t", "Where": e.where(&p, x, 1, 2)}),
		)
		x.whole = false
		out = append(out, render("evaluate/has_histograms", fragments{"Where": e.where(&p, x, 1, 2)}))
	}
	return strings.Join(out, "\n\n") + "\n"
}

func TestStatementText(t *testing.T) {
	golden(t, "statements.golden.sql", textsFor(t, storage.MustTenant("tenant"), "metric", "name", "value"))
}

// injections are texts that would do harm if they became SQL.
var injections = []string{
	"'", "''", `"`, "`", `\`, `\'`, `'; DROP TABLE samples; --`, `' OR '1'='1`, `') OR 1=1 --`, "/* */", "--", "#", ";", "{p0:String}", "{x:Identifier}",
	"\x00", "a\x00b", "\n", "\t'", "%s%s", "${}", "$(x)", "\u2019", "\u02bc", "日本'", `\\'; SELECT 1`, "' UNION ALL SELECT * FROM system.users --", "}}{{.Where}}",
	"CHAR(39)", "0x27", `\x27`, "'||'", "SETTINGS max_memory_usage=0", "FORMAT Null", "a=b", "[]", "['a']", strings.Repeat("'", 300),
}

func TestNoValueBecomesSQL(t *testing.T) {
	tenant := storage.MustTenant("tenant")
	want := textsFor(t, tenant, "metric", "name", "value")
	for _, x := range injections {
		for what, got := range map[string]string{
			"metric": textsFor(t, tenant, x, "name", "value"),
			"name":   textsFor(t, tenant, "metric", x, "value"),
			"value":  textsFor(t, tenant, "metric", "name", x),
		} {
			if got != want {
				t.Errorf("%s %q changes the statements:\n%s", what, x, got)
			}
		}
		if _, err := storage.ParseTenant(x); err == nil && strings.ContainsAny(x, "'\"`\\ ;") {
			t.Errorf("tenant %q is accepted", x)
		}
	}
}

func TestIdentifiersAreChecked(t *testing.T) {
	for _, bad := range injections {
		cfg := goldenConfig()
		cfg.Cluster = bad
		if err := cfg.Validate(); err == nil && bad != "" && !identifier.MatchString(bad) {
			t.Errorf("cluster name %q is accepted", bad)
		}
	}
	cfg := goldenConfig()
	cfg.DSN = "clickhouse://user:secret@host:9000/a;b"
	if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("database name: %v", err)
	}
}

func FuzzPair(f *testing.F) {
	f.Add("name", "value")
	f.Add("a=b", "\x00")
	f.Add(strings.Repeat("n", 200), strings.Repeat("v", 20_000))
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "" || value == "" {
			return
		}
		if n, v := splitPair(pairOf(name, value)); n != name || v != value {
			t.Fatalf("%q=%q became %q=%q", name, value, n, v)
		}
	})
}

func TestFlushAgeFollowsParts(t *testing.T) {
	cfg := DefaultConfig()
	age := cfg.FlushAge
	for range 10 {
		age = nextFlushAge(age, cfg.PartsHigh+1, cfg)
	}
	if age != cfg.FlushAgeMax {
		t.Fatalf("many parts: age %s, want %s", age, cfg.FlushAgeMax)
	}
	if got := nextFlushAge(age, cfg.PartsHigh*3/4, cfg); got != age {
		t.Fatalf("in between: age %s, want %s", got, age)
	}
	for range 30 {
		age = nextFlushAge(age, 0, cfg)
	}
	if age != cfg.FlushAge {
		t.Fatalf("few parts: age %s, want %s", age, cfg.FlushAge)
	}
}

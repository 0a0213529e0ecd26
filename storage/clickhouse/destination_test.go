package clickhouse

import (
	"strings"
	"testing"
)

func TestDestinations(t *testing.T) {
	const name = "luminate-20260102T030405Z-0a1b2c3d"
	for text, want := range map[string]string{
		"Disk('backups', 'luminate')":                  "Disk('backups', 'luminate/" + name + "/shard-1')",
		"Disk('backups', '')":                          "Disk('backups', '" + name + "/shard-1')",
		"File('/var/backups/')":                        "File('/var/backups/" + name + "/shard-1')",
		" S3( 'https://b.s3.amazonaws.com/luminate' )": "S3('https://b.s3.amazonaws.com/luminate/" + name + "/shard-1')",
		"S3(backups,'luminate')":                       "S3(backups, 'luminate/" + name + "/shard-1')",
		"AzureBlobStorage(backups, 'luminate')":        "AzureBlobStorage(backups, 'luminate/" + name + "/shard-1')",
	} {
		d, err := parseDestination(text)
		if err != nil || d.of(name, 1) != want {
			t.Errorf("%s: %v, %v; want %s", text, d.of(name, 1), err, want)
		}
	}
}

func TestHostileDestinations(t *testing.T) {
	bad := []string{
		"", "backups", "Disk('backups')", "Disk(backups, 'x')", "File('relative')", "File('/a/../b')", "S3('http://plain')", "Null('/x')",
		"S3('https://host/x', 'key', 'secret')", "S3('https://host/x', 'key')", "Memory('x')", "File('/x') SETTINGS id='y'", "File('/x'), File('/y')",
		"Disk('../x', 'y')", "File('/x\\')", "File('/x y')", "AzureBlobStorage('DefaultEndpointsProtocol=https', 'c')",
	}
	for _, x := range injections {
		bad = append(bad, "File('/"+x+"')", "Disk('"+x+"', 'y')", "Disk('d', '"+x+"')", "S3("+x+", 'y')")
	}
	for _, text := range bad {
		d, err := parseDestination(text)
		if err != nil {
			continue
		}
		// What is let through cannot end a quoted text.
		if sql := d.of("n", 0); strings.ContainsAny(strings.NewReplacer("'"+d.disk+"'", "", "'"+d.folder+"/n/shard-0'", "").Replace(sql), "\\\"`;{}") ||
			strings.Count(sql, "'") != map[bool]int{true: 4, false: 2}[d.disk != ""] || d.engine == "File" && strings.Contains(d.folder, "..") {
			t.Errorf("%q becomes %s", text, sql)
		}
	}
	for _, text := range bad[:17] {
		if _, err := parseDestination(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for _, name := range append(injections, "", "../x", "a/b", "-x", ".") {
		if backupName.MatchString(name) && strings.ContainsAny(name, "/'\\ ;`{}") {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

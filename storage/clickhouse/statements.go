package clickhouse

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// statements holds every SQL text of the package, by file and name: "read/samples".
// A template's fields are fragments that this package builds from fixed text and
// parameter names; a value never becomes text.
var statements = mustLoadStatements()

func mustLoadStatements() map[string]*template.Template {
	out := map[string]*template.Template{}
	for _, file := range []string{"schema", "read", "write", "evaluate", "backup"} {
		text, err := sqlFiles.ReadFile("sql/" + file + ".sql")
		if err != nil {
			panic(err) // embedded at build time
		}
		for _, part := range strings.Split(string(text), "-- name: ")[1:] {
			name, body, _ := strings.Cut(part, "\n")
			name = file + "/" + strings.TrimSpace(name)
			out[name] = template.Must(template.New(name).Option("missingkey=error").Parse(strings.TrimSpace(body)))
		}
	}
	return out
}

// fragments fill a statement's template.
type fragments map[string]any

// render returns a statement's text. A missing name or fragment is a bug of ours.
func render(name string, data any) string {
	t := statements[name]
	if t == nil {
		panic(fmt.Sprintf("clickhouse: no statement %q", name))
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		panic(fmt.Sprintf("clickhouse: statement %s: %v", name, err))
	}
	return b.String()
}

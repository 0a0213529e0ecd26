package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The parts of openapi.yaml that the reference shows. The document is decoded with its
// anchors resolved.
type (
	apiDocument struct {
		Info struct {
			Description string `json:"description"`
		} `json:"info"`
		Tags []struct {
			Name, Description string
		} `json:"tags"`
		Paths      map[string]apiPath `json:"paths"`
		Components struct {
			Schemas   map[string]apiSchema   `json:"schemas"`
			Responses map[string]apiResponse `json:"responses"`
		} `json:"components"`
	}
	apiPath struct {
		Parameters []apiParameter `json:"parameters"`
		Get        *apiOperation  `json:"get"`
		Head       *apiOperation  `json:"head"`
		Post       *apiOperation  `json:"post"`
		Put        *apiOperation  `json:"put"`
		Delete     *apiOperation  `json:"delete"`
	}
	apiOperation struct {
		Tags                 []string
		Summary, Description string
		Parameters           []apiParameter
		RequestBody          *apiBody
		Responses            map[string]apiResponse
	}
	apiParameter struct {
		Name, In, Description string
		Required              bool
		Schema                apiSchema
	}
	apiBody struct {
		Content map[string]apiMedia `json:"content"`
	}
	apiMedia struct {
		Schema   apiSchema `json:"schema"`
		Examples map[string]struct {
			Value any `json:"value"`
		} `json:"examples"`
	}
	apiResponse struct {
		Ref         string              `json:"$ref"`
		Description string              `json:"description"`
		Content     map[string]apiMedia `json:"content"`
	}
	apiSchema struct {
		Ref         string               `json:"$ref"`
		Type        string               `json:"type"`
		Format      string               `json:"format"`
		Description string               `json:"description"`
		Pattern     string               `json:"pattern"`
		Enum        []any                `json:"enum"`
		Items       *apiSchema           `json:"items"`
		Properties  map[string]apiSchema `json:"properties"`
		Required    []string             `json:"required"`
		OneOf       []apiSchema          `json:"oneOf"`
		AnyOf       []apiSchema          `json:"anyOf"`
	}
)

// TestAPIReference keeps API.md equal to what openapi.yaml says.
func TestAPIReference(t *testing.T) {
	var doc apiDocument
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	want := renderReference(&doc)
	for path := range doc.Paths {
		if !strings.HasPrefix(path, "/prometheus/") && !bytes.Contains(want, []byte(" "+path+"`")) {
			t.Errorf("%s is in no section: it has no tag", path)
		}
	}
	const path = "API.md"
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what openapi.yaml says; write it anew with `go test ./native -run APIReference -update`", path)
	}
}

func renderReference(doc *apiDocument) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# HTTP API\n\nMade from [openapi.yaml](openapi.yaml) (a server has it at `/api/v1/openapi.yaml`) by\n`go test ./native -run APIReference -update`.\n\n%s\n"+
		"Every path of the Prometheus HTTP API is served under `/prometheus` too.\n", doc.Info.Description)
	for _, tag := range doc.Tags {
		fmt.Fprintf(&b, "\n## %s%s\n", strings.ToUpper(tag.Name[:1]), tag.Name[1:])
		if tag.Description != "" {
			fmt.Fprintf(&b, "\n%s.\n", tag.Description)
		}
		for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
			if !strings.HasPrefix(path, "/prometheus/") {
				renderPath(&b, doc, tag.Name, path)
			}
		}
	}
	b.WriteString("\n## Types\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		renderType(&b, name, doc.Components.Schemas[name])
	}
	return b.Bytes()
}

// renderPath writes the operations of a path whose first tag is the section's.
func renderPath(b *bytes.Buffer, doc *apiDocument, tag, path string) {
	p := doc.Paths[path]
	for _, m := range []struct {
		name string
		op   *apiOperation
	}{{"GET", p.Get}, {"HEAD", p.Head}, {"POST", p.Post}, {"PUT", p.Put}, {"DELETE", p.Delete}} {
		if m.op == nil || len(m.op.Tags) == 0 || m.op.Tags[0] != tag {
			continue
		}
		fmt.Fprintf(b, "\n### `%s %s`\n\n%s\n", m.name, path, m.op.Summary)
		if m.op.Description != "" {
			fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(m.op.Description))
		}
		if params := slices.Concat(p.Parameters, m.op.Parameters); len(params) > 0 {
			b.WriteString("\n| Parameter | In | Type | Meaning |\n|---|---|---|---|\n")
			for _, x := range params {
				name := "`" + x.Name + "`"
				if x.Required {
					name += " (required)"
				}
				fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, x.In, x.Schema.text(), oneLine(x.Description))
			}
		}
		if m.op.RequestBody != nil {
			renderBody(b, m.op.RequestBody)
		}
		b.WriteString("\n| Status | Answer |\n|---|---|\n")
		for _, status := range slices.Sorted(maps.Keys(m.op.Responses)) {
			r := m.op.Responses[status]
			if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
				r = doc.Components.Responses[name]
			}
			fmt.Fprintf(b, "| %s | %s |\n", status, oneLine(r.Description+mediaTypes(r.Content)))
		}
	}
}

func renderBody(b *bytes.Buffer, body *apiBody) {
	for _, media := range slices.Sorted(maps.Keys(body.Content)) {
		c := body.Content[media]
		fmt.Fprintf(b, "\nBody `%s`: %s.\n", media, c.Schema.text())
		for _, name := range slices.Sorted(maps.Keys(c.Examples)) {
			var text string
			kind := "json"
			if s, ok := c.Examples[name].Value.(string); ok {
				text, kind = strings.TrimSpace(s), "text"
			} else {
				form, err := json.MarshalIndent(c.Examples[name].Value, "", "  ")
				if err != nil {
					panic(err) // it came from YAML
				}
				text = string(form)
			}
			fmt.Fprintf(b, "\n```%s\n%s\n```\n", kind, text)
		}
	}
}

// mediaTypes names the types of an answer that is not the error form of all.
func mediaTypes(content map[string]apiMedia) string {
	var out []string
	for _, media := range slices.Sorted(maps.Keys(content)) {
		out = append(out, "`"+media+"`: "+content[media].Schema.text())
	}
	if len(out) == 0 {
		return ""
	}
	return " " + strings.Join(out, "; ")
}

func renderType(b *bytes.Buffer, name string, s apiSchema) {
	fmt.Fprintf(b, "\n### %s\n", name)
	if s.Description != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(s.Description))
	}
	if len(s.Properties) == 0 {
		fmt.Fprintf(b, "\n%s\n", s.text())
		return
	}
	b.WriteString("\n| Field | Type | Meaning |\n|---|---|---|\n")
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		label := "`" + field + "`"
		if slices.Contains(s.Required, field) {
			label += " (required)"
		}
		p := s.Properties[field]
		fmt.Fprintf(b, "| %s | %s | %s |\n", label, p.text(), oneLine(p.Description))
	}
}

// text is a schema in a few words; named ones are links.
func (s apiSchema) text() string {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return "[" + name + "](#" + strings.ToLower(name) + ")"
	}
	var words []string
	switch {
	case len(s.Enum) > 0:
		for _, v := range s.Enum {
			words = append(words, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(words, ", ")
	case len(s.OneOf)+len(s.AnyOf) > 0:
		for _, x := range slices.Concat(s.OneOf, s.AnyOf) {
			words = append(words, x.text())
		}
		return strings.Join(words, " or ")
	case s.Items != nil:
		return "list of " + s.Items.text()
	case s.Type == "object" && len(s.Properties) > 0:
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			words = append(words, "`"+name+"`: "+s.Properties[name].text())
		}
		return "object {" + strings.Join(words, ", ") + "}"
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	case s.Type == "":
		return "any"
	default:
		return s.Type
	}
}

// oneLine makes a text fit for a cell of a table.
func oneLine(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

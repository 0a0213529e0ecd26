package native

import (
	_ "embed"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPIRoute is a method and a path template of the OpenAPI document.
type OpenAPIRoute struct {
	Method string // upper case
	Path   string // variables as {name}
}

// OpenAPIPaths lists what the document describes, ordered by path and method, so
// that a test of the program can compare it with the router both ways.
func OpenAPIPaths() ([]OpenAPIRoute, error) {
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		return nil, fmt.Errorf("parse the OpenAPI document: %w", err)
	}
	methods := []string{"get", "head", "post", "put", "delete"}
	var out []OpenAPIRoute
	for path, item := range doc.Paths {
		for key := range item {
			if slices.Contains(methods, key) {
				out = append(out, OpenAPIRoute{Method: strings.ToUpper(key), Path: path})
			}
		}
	}
	slices.SortFunc(out, func(a, b OpenAPIRoute) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Method, b.Method)
	})
	return out, nil
}

func (a *API) serveOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	_, _ = w.Write(openAPI) // the client may have gone
	return nil
}

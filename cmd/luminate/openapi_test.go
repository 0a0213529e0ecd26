package main

import (
	"testing"

	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestOpenAPIEqualsRouter compares openapi.yaml with the router both ways.
func TestOpenAPIEqualsRouter(t *testing.T) {
	documented, err := native.OpenAPIPaths()
	if err != nil {
		t.Fatal(err)
	}
	inDocument := map[[2]string]bool{}
	for _, r := range documented {
		inDocument[[2]string{r.Method, r.Path}] = true
	}
	for _, route := range registered(t, newAuthServer(t, storagetest.NewModel(), nil).app.router) {
		if !inDocument[route] {
			t.Errorf("%s %s is served and not in native/openapi.yaml", route[0], route[1])
		}
		delete(inDocument, route)
	}
	for route := range inDocument {
		t.Errorf("%s %s is in native/openapi.yaml and not served", route[0], route[1])
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

// TestQueryDispatch: a JSON body is a native query, everything else PromQL, and so is
// a query in the URL, which vmalert sends with the type of a body that it has not.
func TestQueryDispatch(t *testing.T) {
	s := newAuthServer(t, storagetest.NewModel(), nil)
	auth := []string{"Authorization", "Bearer " + mintFor(t, tenancy.Grant{Tenant: "a", Scopes: []tenancy.Scope{tenancy.ScopeRead}})}
	const form, json = "application/x-www-form-urlencoded", "application/json"
	for _, tc := range []struct{ method, path, contentType, body, want string }{
		{"GET", "/api/v1/query?query=1%2B1", "", "", `"resultType":"scalar"`},
		{"POST", "/api/v1/query", form, "query=1%2B1", `"resultType":"scalar"`},
		{"POST", "/api/v1/query?query=1%2B1&step=300s", json, "", `"resultType":"scalar"`},
		{"POST", "/api/v1/query?query=1%2B", json, "", `"errorType":"bad_data"`},
		{"POST", "/api/v1/query_range?query=1%2B1&start=1&end=2&step=1", json, "", `"resultType":"matrix"`},
		{"POST", "/api/v1/query", json, "", `{"error":{"code":"INVALID_JSON"`},
		{"POST", "/api/v1/query", json, `{"queryType":"range"}`, `{"error":{"code":"INVALID_QUERY"`},
	} {
		_, body := s.call(t, tc.method, tc.path, tc.body, append([]string{"Content-Type", tc.contentType}, auth...)...)
		if !strings.Contains(body, tc.want) {
			t.Errorf("%s %s as %q: %s", tc.method, tc.path, tc.contentType, body)
		}
	}
	// An error of the gate has the form of the API that was meant.
	if _, body := s.call(t, "POST", "/api/v1/query?query=up", "", "Content-Type", json); !strings.Contains(body, `"errorType"`) {
		t.Errorf("without a token: %s", body)
	}
}

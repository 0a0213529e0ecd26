package native

import (
	"bytes"
	_ "embed"
	htmltemplate "html/template"
	"net/http"
	"strings"
	texttemplate "text/template"
)

//go:embed page.html
var pageHTML string

//go:embed page.txt
var pageText string

var (
	htmlPage = htmltemplate.Must(htmltemplate.New("page").Parse(pageHTML))
	textPage = texttemplate.Must(texttemplate.New("page").Parse(pageText))
)

// pageData is what the page at / shows. It holds nothing of any tenant.
type pageData struct {
	Version, Backend, TenantMode, URL string
}

// servePage answers / with a page, or the same as text where the client does not
// ask for HTML, as curl does not.
func (a *API) servePage(w http.ResponseWriter, r *http.Request) error {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	data := pageData{Version: a.cfg.Version, Backend: a.cfg.Backend, TenantMode: a.cfg.TenantMode, URL: scheme + "://" + r.Host}
	var b bytes.Buffer
	contentType := "text/plain; charset=utf-8"
	var err error
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		contentType = "text/html; charset=utf-8"
		err = htmlPage.Execute(&b, data)
	} else {
		err = textPage.Execute(&b, data)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Vary", "Accept")
	_, _ = w.Write(b.Bytes()) // the client may have gone
	return nil
}

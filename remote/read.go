package remote

import "net/http"

func (a *API) ServeRead(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
func (a *API) ServeOTLP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

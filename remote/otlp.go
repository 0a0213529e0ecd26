package remote

import "net/http"

func (a *API) ServeOTLP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

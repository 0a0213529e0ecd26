package remote

import (
	"mime"
	"net/http"
	"strings"
)

// version is the remote-write message that a request carries.
type version uint8

const (
	version1 version = iota + 1 // prometheus.WriteRequest
	version2                    // io.prometheus.write.v2.Request
)

// protocol is the value of the protocol label of the metrics.
func (v version) protocol() string {
	if v == version2 {
		return "rw2"
	}
	return "rw1"
}

const (
	protobufType  = "application/x-protobuf"
	protoV1       = "prometheus.WriteRequest"
	protoV2       = "io.prometheus.write.v2.Request"
	versionHeader = "X-Prometheus-Remote-Write-Version"
)

// IsRemoteWrite tells whether a request on a path that is shared with the native
// API is remote write: by its protobuf type, by snappy, or by the version header,
// whatever its Content-Type says.
func IsRemoteWrite(r *http.Request) bool {
	return hasMark(r.Header) || isProtobuf(r.Header.Get("Content-Type"))
}

// hasMark tells whether the headers show a remote-write sender.
func hasMark(h http.Header) bool {
	return h.Get(versionHeader) != "" || isSnappy(h.Get("Content-Encoding"))
}

func isSnappy(encoding string) bool {
	return strings.EqualFold(strings.TrimSpace(encoding), "snappy")
}

func isProtobuf(contentType string) bool {
	mediaType, _, _ := mime.ParseMediaType(contentType)
	return mediaType == protobufType
}

// negotiate finds the message by the Content-Type header, as the specification
// demands. No Content-Type at all is version 1, and only from a sender that shows
// itself. An absent Content-Encoding is taken for snappy, as Prometheus does.
func negotiate(h http.Header) (version, error) {
	if enc := h.Get("Content-Encoding"); enc != "" && !isSnappy(enc) {
		return 0, mediaErrorf("content encoding %q is not supported, send snappy (block format)", enc)
	}
	contentType := h.Get("Content-Type")
	if contentType == "" {
		if hasMark(h) {
			return version1, nil
		}
		return 0, mediaErrorf("no Content-Type: send %s with snappy for remote write", protobufType)
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, mediaErrorf("content type %q: %v", contentType, err)
	}
	if mediaType != protobufType {
		return 0, mediaErrorf("content type %q is not supported, remote write takes %s", mediaType, protobufType)
	}
	switch proto := params["proto"]; proto {
	case "", protoV1:
		return version1, nil
	case protoV2:
		return version2, nil
	default:
		return 0, mediaErrorf("protobuf message %q is not supported, send %s or %s", proto, protoV1, protoV2)
	}
}

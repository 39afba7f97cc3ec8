package api

import (
	"context"
	"net/http"
)

// Handler serves requests as if root had sent them, without a socket.
func (s *Server) Handler() http.Handler { return s.HandlerFor(0) }

// HandlerFor serves requests as if a user had sent them who may speak to the
// switch.
func (s *Server) HandlerFor(uid uint32) http.Handler {
	s.access = access{uids: []uint32{uid}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.http.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{uid: uid})))
	})
}

// Admits reports whether a socket of the given owner and group serves a caller.
func Admits(owner, group, uid, gid uint32, groups ...uint32) bool {
	return access{uids: []uint32{0, owner}, gid: group, file: true}.admits(peer{uid: uid, gid: gid, groups: groups})
}

package web

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// maxBody bounds every request; plans are the largest.
const maxBody = 4 << 20

// policy is the content security policy of every page: nothing from elsewhere,
// no inline script or style. Assets are named by their hash.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard is around everything: whom the request was meant for, whence it comes,
// how large it is, and what browsers may do with the answer.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := s.cfg.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.cfg.Log.Error("panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				if !rec.wrote {
					http.Error(rec, "something broke on our side", http.StatusInternalServerError)
				}
			}
			s.metrics.request(r.Method, r.Pattern, rec.status, s.cfg.Now().Sub(started))
			s.cfg.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status, "remote", remote(r))
		}()
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		if s.cfg.Secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if p := s.misdirected(r); p != nil {
			s.refuse(rec, r, p)
			return
		}
		if p := s.foreign(r); p != nil {
			s.refuse(rec, r, p)
			return
		}
		r.Body = http.MaxBytesReader(rec, r.Body, maxBody)
		next.ServeHTTP(rec, r)
	})
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, p *problem) {
	s.cfg.Log.Warn("request refused", "path", r.URL.Path, "host", r.Host, "origin", r.Header.Get("Origin"), "remote", remote(r), "why", p.Detail)
	writeJSON(w, p.Status, "application/problem+json", p)
}

// misdirected refuses names that are not this server's: with a name of his own
// that he points at this machine, a stranger's page would be of the same origin
// (DNS rebinding).
func (s *Server) misdirected(r *http.Request) *problem {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if slices.Contains(s.cfg.Hosts, host) {
		return nil
	}
	return problemf(http.StatusMisdirectedRequest, "use one of the names "+strings.Join(s.cfg.Hosts, ", ")+", or add this one with --host", "this server is not %q", r.Host)
}

// foreign refuses changes that another site's page asks for. Browsers say
// whence a request comes (Sec-Fetch-Site, Origin); a form's must.
func (s *Server) foreign(r *http.Request) *problem {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if err := s.origin.Check(r); err != nil {
		return problemf(http.StatusForbidden, "open the page on this server and send it from there", "the request comes from another site")
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(kind) != "application/json" && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Authorization") == "" {
		return problemf(http.StatusForbidden, "programs send JSON to /v1", "a form has to say from which page it comes")
	}
	return nil
}

// admit says who asks and whether he may.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, scope string) (access.Identity, error) {
	now := s.cfg.Now()
	id, err := s.identify(r, now)
	if errors.Is(err, access.ErrDenied) {
		if scope == "" {
			return access.Identity{}, nil
		}
		if a := s.strange.Allow(remoteHost(r), 60, now); !a.OK {
			return id, tooMany(a.Retry, "too many requests without a valid key")
		}
		return id, problemf(http.StatusUnauthorized, "send Authorization: Bearer KEY, with a key made by `repromill keys create`, or log in at /login", "%v", err)
	}
	if err != nil {
		return id, err
	}
	perMinute := id.RequestsPerMinute
	if perMinute == 0 {
		perMinute = s.cfg.RequestsPerMinute
	}
	a := s.limits.Allow(id.ID, perMinute, now)
	w.Header().Set("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=60`, perMinute))
	w.Header().Set("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%d`, a.Remaining, int(a.Reset.Seconds())))
	if !a.OK {
		return id, tooMany(a.Retry, "more than %d requests in a minute", perMinute)
	}
	if scope != "" && !id.May(scope) {
		return id, problemf(http.StatusForbidden, "use a key with the scope "+scope, "the key %s may not %s", id.ID, scope)
	}
	return id, nil
}

func tooMany(after time.Duration, format string, args ...any) *problem {
	p := problemf(http.StatusTooManyRequests, "wait as long as Retry-After says", format, args...)
	p.retry = max(after, time.Second)
	return p
}

// identify returns who asks: by a key in the header, by a session, or nobody in
// particular where no key is demanded.
func (s *Server) identify(r *http.Request, now time.Time) (access.Identity, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return access.Check(r.Context(), s.cfg.Store, strings.TrimSpace(token), now)
	}
	if !s.cfg.Keys {
		return access.Local(), nil
	}
	id, ok := s.session(r, now)
	if !ok {
		return access.Identity{}, fmt.Errorf("%w: none was given", access.ErrDenied)
	}
	k, err := s.cfg.Store.Key(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return access.Identity{}, fmt.Errorf("%w: it is unknown", access.ErrDenied)
	}
	if err != nil {
		return access.Identity{}, err
	}
	return access.Of(k, now)
}

func remote(r *http.Request) string { return r.RemoteAddr }

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

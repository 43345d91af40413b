package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// call is one request with who makes it.
type call struct {
	s  *Server
	w  http.ResponseWriter
	r  *http.Request
	id access.Identity
}

// problem is an outcome that is told with a status of HTTP (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
	retry  time.Duration
}

func (p *problem) Error() string { return p.Detail }

func problemf(status int, fix, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// explain gives an error its status. What is ours is logged and told without
// its text, which may name files of this machine.
func (s *Server) explain(r *http.Request, err error) *problem {
	var p *problem
	var user interface{ UserError() string }
	var large *http.MaxBytesError
	var driven *runner.DrivenError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return problemf(http.StatusRequestEntityTooLarge, "send a smaller document", "the request is larger than %d bytes", large.Limit)
	case errors.Is(err, store.ErrNotFound):
		return problemf(http.StatusNotFound, "the list of runs is at /runs", "there is no such run")
	case errors.Is(err, store.ErrTerminal):
		return problemf(http.StatusConflict, "start another run", "the run is finished and does not change")
	case errors.As(err, &driven):
		return problemf(http.StatusConflict, "follow it instead", "another process drives this run")
	case errors.As(err, &user):
		return problemf(http.StatusUnprocessableEntity, user.UserError(), "%s", err.Error())
	}
	s.cfg.Log.Error("request failed", "path", r.URL.Path, "error", err)
	return problemf(http.StatusInternalServerError, "try again; the server's log has the cause", "something broke on our side")
}

// audit records what was done.
func (c *call) audit(action, subject, detail string) error {
	return c.s.cfg.Store.Audit(c.r.Context(), store.Audit{Actor: c.id.ID, Action: action, Subject: subject, Remote: remote(c.r), Detail: detail})
}

// path is the run that the request names, by its whole id or a prefix.
func (c *call) run() (store.Run, error) {
	id := c.r.PathValue("id")
	if len(id) < 6 || len(id) > 40 {
		return store.Run{}, fmt.Errorf("%w: %q", store.ErrNotFound, id)
	}
	return c.s.cfg.Store.Find(c.r.Context(), id)
}

// layout is what every page has.
type layout struct {
	Title   string
	Nav     string // of the entries of the menu
	Version string
	Who     access.Identity
	Login   bool // one can log out
	Live    bool // the page changes by itself
	Data    any
}

// render writes a page from its template.
func (c *call) render(status int, name, title, nav string, data any) error {
	var b bytes.Buffer
	l := layout{Title: title, Nav: nav, Version: c.s.cfg.Version, Who: c.id, Login: c.s.cfg.Keys && c.id.ID != "", Data: data}
	if v, ok := data.(interface{ Live() bool }); ok {
		l.Live = v.Live()
	}
	if err := c.s.pages.ExecuteTemplate(&b, name, l); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
	_, err := c.w.Write(b.Bytes())
	return ignoreGone(err)
}

// ignoreGone drops the error of a client that went away.
func ignoreGone(error) error { return nil }

func (c *call) redirect(to string) error {
	http.Redirect(c.w, c.r, to, http.StatusSeeOther)
	return nil
}

// page wraps a handler of pages.
func (s *Server) page(scope string, h func(*call) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s, w: w, r: r}
		id, err := s.admit(w, r, scope)
		c.id = id
		if err == nil {
			err = h(c)
		}
		if err == nil {
			return
		}
		p := s.explain(r, err)
		if p.Status == http.StatusUnauthorized {
			_ = c.redirect("/login?next=" + url.QueryEscape(r.URL.RequestURI()))
			return
		}
		retryAfter(w, p)
		if err := c.render(p.Status, "problem.html", p.Title, "", p); err != nil {
			s.cfg.Log.Error("a page cannot be shown", "error", err)
			http.Error(w, p.Detail, p.Status)
		}
	}
}

func retryAfter(w http.ResponseWriter, p *problem) {
	if p.retry > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(p.retry.Seconds()+0.999)))
	}
}

// endpoint wraps a route of the API.
func (s *Server) endpoint(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := s.admit(w, r, rt.scope)
		var status int
		var body any
		if err == nil {
			status, body, err = rt.handle(&call{s: s, w: w, r: r, id: id})
		}
		if err != nil {
			p := s.explain(r, err)
			retryAfter(w, p)
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="repromill"`)
			}
			writeJSON(w, p.Status, "application/problem+json", p)
			return
		}
		if status != 0 { // else it has written the answer itself
			writeJSON(w, status, "application/json", body)
		}
	}
}

func writeJSON(w http.ResponseWriter, status int, kind string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "encode answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// decode reads the JSON body of a request.
func (c *call) decode(v any) error {
	if kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "send Content-Type: application/json", "the body is %q", kind)
	}
	dec := json.NewDecoder(c.r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return problemf(http.StatusBadRequest, "the document's shape is in /v1/openapi.json", "the body is no such document: %v", err)
	}
	return nil
}

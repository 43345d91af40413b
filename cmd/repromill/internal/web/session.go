package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// sessionTime is how long a browser stays logged in.
const sessionTime = 12 * time.Hour

// cookie is the session's name. With https the prefix makes browsers refuse
// one that another host or a plain connection set.
func (s *Server) cookie() string {
	if s.cfg.Secure {
		return "__Host-repromill"
	}
	return "repromill"
}

// sign makes the value of a session: the id of the key, when it ends, and a
// signature of both. The key itself is never in a cookie; revoking it ends its
// sessions, since every request looks it up.
func (s *Server) sign(key string, until time.Time) string {
	body := key + "." + strconv.FormatInt(until.Unix(), 10)
	return body + "." + s.mac(body)
}

func (s *Server) mac(body string) string {
	h := hmac.New(sha256.New, s.cfg.Secret)
	h.Write([]byte("session " + body))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// session returns the key of a request's session.
func (s *Server) session(r *http.Request, now time.Time) (key string, ok bool) {
	c, err := r.Cookie(s.cookie())
	if err != nil {
		return "", false
	}
	i := strings.LastIndexByte(c.Value, '.')
	if i < 0 || !hmac.Equal([]byte(s.mac(c.Value[:i])), []byte(c.Value[i+1:])) {
		return "", false
	}
	key, until, _ := strings.Cut(c.Value[:i], ".")
	unix, err := strconv.ParseInt(until, 10, 64)
	return key, err == nil && now.Unix() < unix
}

type loginView struct {
	Next    string
	Problem string
}

// local is a path of this server, for the way back after logging in.
func local(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n") {
		return "/"
	}
	return next
}

func (s *Server) loginPage(c *call) error {
	return c.render(http.StatusOK, "login.html", "Log in", "", loginView{Next: local(c.r.URL.Query().Get("next"))})
}

func (s *Server) loginForm(c *call) error {
	if err := c.r.ParseForm(); err != nil {
		return badForm(err)
	}
	now := s.cfg.Now()
	if a := s.strange.Allow(remoteHost(c.r), 60, now); !a.OK {
		return tooMany(a.Retry, "too many tries")
	}
	id, err := access.Check(c.r.Context(), s.cfg.Store, strings.TrimSpace(c.r.PostForm.Get("key")), now)
	if err != nil {
		_ = s.cfg.Store.Audit(c.r.Context(), store.Audit{Actor: "unknown", Action: "login.refused", Remote: remote(c.r)})
		return c.render(http.StatusUnauthorized, "login.html", "Log in", "", loginView{Next: local(c.r.PostForm.Get("next")), Problem: err.Error()})
	}
	until := now.Add(sessionTime)
	if !id.Expires.IsZero() && id.Expires.Before(until) {
		until = id.Expires
	}
	c.id = id
	if err := c.audit("login", id.ID, ""); err != nil {
		return err
	}
	s.setCookie(c.w, s.sign(id.ID, until), until)
	return c.redirect(local(c.r.PostForm.Get("next")))
}

func (s *Server) logoutForm(c *call) error {
	s.setCookie(c.w, "", time.Unix(1, 0))
	return c.redirect("/login")
}

func (s *Server) setCookie(w http.ResponseWriter, value string, until time.Time) {
	http.SetCookie(w, &http.Cookie{Name: s.cookie(), Value: value, Path: "/", Expires: until, HttpOnly: true, Secure: s.cfg.Secure, SameSite: http.SameSiteStrictMode})
}

// badForm is the outcome of a form that cannot be read.
func badForm(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return problemf(http.StatusBadRequest, "send the form again", "the form cannot be read: %v", err)
}

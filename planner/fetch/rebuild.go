package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxURL is the longest URL that is looked at, in bytes. A list of 200 arXiv
// ids fits; a signed URL of a content network takes about 2,000.
const maxURL = 8192

// userinfo is what stands before the host: it may be a password, and is not
// shown.
var userinfo = regexp.MustCompile(`//[^/?#]*@`)

// place is a site together with where it is asked.
type place struct {
	site
	// endpoint replaces https://<host> where the user configured it.
	endpoint *url.URL
	limit    *Limit // replaces the table's buckets
}

// location is a rebuilt URL: what was understood of it, and nothing else.
type location struct {
	place *place
	// base is scheme, host and the endpoint's path prefix.
	base string
	// path starts with a slash and is escaped canonically.
	path  string
	query string
	// home is true on the host that the site is asked at, false on a host that
	// it only redirects to.
	home bool
}

func (l location) String() string {
	s := l.base + l.path
	if l.query != "" {
		s += "?" + l.query
	}
	return s
}

// shown is the URL without the signature that a content network's URL carries.
func (l location) shown() string {
	if l.home || l.query == "" {
		return l.String()
	}
	return l.base + l.path
}

// rebuild understands a URL that was asked for.
func (c *Client) rebuild(raw string) (location, error) {
	u, err := parseURL(raw)
	if err != nil {
		return location{}, &BlockedError{URL: clip(userinfo.ReplaceAllString(raw, "//")), Reason: err.Error()}
	}
	p, rest := c.byEndpoint(u)
	if p == nil {
		p, rest = c.byHost(u)
	}
	if p == nil {
		return location{}, &BlockedError{URL: clip(u.String()), Reason: c.whyNot(u)}
	}
	loc, err := p.at(rest, u.RawQuery, c.cfg.Mirror != "")
	if err != nil {
		return location{}, &BlockedError{URL: clip(u.String()), Reason: err.Error()}
	}
	return loc, nil
}

// redirected understands where an answer from one location sends us.
func (c *Client) redirected(from location, header string) (location, error) {
	blocked := func(reason string) (location, error) {
		return location{}, &BlockedError{URL: from.shown(), Reason: "its redirect to " + clip(userinfo.ReplaceAllString(header, "//")) + " is not followed: " + reason}
	}
	here, err := url.Parse(from.String())
	if err != nil {
		return blocked(err.Error())
	}
	ref, err := url.Parse(header)
	if err != nil {
		return blocked("it is not a URL")
	}
	u, err := parseURL(here.ResolveReference(ref).String())
	if err != nil {
		return blocked(err.Error())
	}
	if p, rest := c.byEndpoint(u); p != nil {
		loc, err := p.at(rest, u.RawQuery, false)
		if err != nil {
			return blocked(err.Error())
		}
		return loc, nil
	}
	if p, rest := c.byHost(u); p != nil {
		// The canonical host is taken at its word here: an endpoint that sends
		// us there would otherwise send us round in a circle.
		loc, err := p.at(rest, u.RawQuery, true)
		if err != nil {
			return blocked(err.Error())
		}
		loc.home = p.endpoint == nil
		return loc, nil
	}
	for _, pattern := range from.place.redirects {
		if u.Scheme == "https" && matchHost(pattern, u.Hostname()) && (u.Port() == "" || u.Port() == "443") {
			if !plainASCII(u.EscapedPath()) || !plainASCII(u.RawQuery) {
				return blocked("it holds characters that a URL may not")
			}
			return location{
				place: from.place, base: "https://" + u.Hostname(), path: u.EscapedPath(), query: u.RawQuery,
			}, nil
		}
	}
	return blocked(c.whyNot(u))
}

// parseURL parses strictly: http or https, a host, no user, no surprises.
func parseURL(raw string) (*url.URL, error) {
	if len(raw) > maxURL {
		return nil, fmt.Errorf("it is longer than %d bytes", maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		var perr *url.Error
		if errors.As(err, &perr) {
			err = perr.Err
		}
		return nil, fmt.Errorf("it is not a URL (%v)", err)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("only https is used")
	case u.Opaque != "" || u.Host == "":
		return nil, errors.New("it names no host")
	case u.User != nil:
		u.User = nil
		return nil, errors.New("a user name or password in a URL is never sent")
	}
	for i := 0; i < len(u.Host); i++ {
		if b := u.Host[i]; b >= utf8.RuneSelf {
			return nil, errors.New("its host is not plain ASCII and may only look like a known one")
		}
	}
	u.Host = strings.ToLower(u.Host)
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// byEndpoint finds the site whose configured endpoint u lies below. Of several
// the longest prefix wins, then the one whose rules admit the path.
func (c *Client) byEndpoint(u *url.URL) (*place, string) {
	var best *place
	var rest string
	path := u.EscapedPath()
	for _, p := range c.places {
		e := p.endpoint
		if e == nil || e.Scheme != u.Scheme || hostPort(e) != hostPort(u) {
			continue
		}
		r, ok := strings.CutPrefix(path, e.EscapedPath())
		if !ok || r != "" && r[0] != '/' {
			continue
		}
		if best == nil || len(r) < len(rest) || len(r) == len(rest) && !best.admits(rest) && p.admits(r) {
			best, rest = p, r
		}
	}
	return best, rest
}

// byHost finds the site with u's host among its canonical names.
func (c *Client) byHost(u *url.URL) (*place, string) {
	if port := u.Port(); port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
		return nil, ""
	}
	return c.hosts[u.Hostname()], u.EscapedPath()
}

func (c *Client) whyNot(u *url.URL) string {
	if c.hosts[u.Hostname()] != nil {
		return "only port 443 is used"
	}
	return fmt.Sprintf("the host %q is not a known site", u.Hostname())
}

// at builds the location of an escaped path and a raw query on the place.
func (p *place) at(path, rawQuery string, canonical bool) (location, error) {
	clean, err := cleanPath(path)
	if err != nil {
		return location{}, err
	}
	if !p.admits(clean) {
		return location{}, fmt.Errorf("%s asks programs to leave %s alone; it may be asked for %s", p.host, clean, strings.Join(p.paths, ", "))
	}
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return location{}, errors.New("its query cannot be read")
	}
	loc := location{place: p, base: "https://" + p.host, path: clean, query: values.Encode(), home: true}
	if p.endpoint != nil && !canonical {
		loc.base = p.endpoint.String()
	}
	return loc, nil
}

// cleanPath splits an escaped path, checks each segment and escapes it
// canonically. Runs of slashes are one slash.
func cleanPath(escaped string) (string, error) {
	var b strings.Builder
	segments := strings.Split(strings.TrimLeft(escaped, "/"), "/")
	for i, s := range segments {
		if s == "" && i < len(segments)-1 {
			continue
		}
		dec, err := url.PathUnescape(s)
		if err != nil {
			return "", errors.New("its path cannot be read")
		}
		if !utf8.ValidString(dec) {
			return "", errors.New("its path is not UTF-8")
		}
		for part := range strings.SplitSeq(dec, "/") {
			if part == "." || part == ".." {
				return "", errors.New("its path climbs with dots")
			}
		}
		for _, r := range dec {
			if r < 0x20 || r == 0x7f || r == '\\' {
				return "", errors.New("its path holds a control character or a backslash")
			}
		}
		b.WriteByte('/')
		b.WriteString(escapeSegment(dec))
	}
	return b.String(), nil
}

// escapeSegment percent-encodes every byte of a path segment that is not a
// letter, a digit or one of -_~.!$&'()+,;=. The outcome is valid in a URL and
// as the name of a file, and url.PathUnescape takes it back.
func escapeSegment(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if ch := s[i]; isPlain(ch) {
			b.WriteByte(ch)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[ch>>4])
			b.WriteByte(hex[ch&15])
		}
	}
	return b.String()
}

func isPlain(ch byte) bool {
	return ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9' ||
		strings.IndexByte("-_~.!$&'()+,;=", ch) >= 0
}

// plainASCII reports whether s can be sent in a request line as it is.
func plainASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte("\"<>\\^`{|}#", s[i]) >= 0 {
			return false
		}
	}
	return true
}

// hostPort is the host with its port, also where the port is the scheme's own.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "http" {
		return u.Host + ":80"
	}
	return u.Host + ":443"
}

// clip shortens outside text for a message and makes it printable.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// Path joins the parts of a path, each escaped, so that a revision such as
// refs/pr/1 stays one segment: Path("api", "models", "a", "tree", "refs/pr/1").
func Path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(escapeSegment(p))
	}
	return b.String()
}

// URL is the canonical URL of an escaped path and a query on a site, at the
// endpoint that is configured for it. See [Path] for building the path.
func (c *Client) URL(s Site, path string, query url.Values) (string, error) {
	p := c.bySite[s]
	if p == nil {
		return "", &configError{fmt.Sprintf("no site is called %q", s), "name its endpoint in the configuration"}
	}
	loc, err := p.at(path, query.Encode(), c.cfg.Mirror != "")
	if err != nil {
		return "", &BlockedError{URL: clip(p.host + path), Reason: err.Error()}
	}
	return loc.String(), nil
}

package git

import (
	"net/url"
	"path"
	"path/filepath"
	"strings"
)

// remote is a parsed, accepted address of a repository.
type remote struct {
	name string   // canonical: scheme://host/path without .git
	url  *url.URL // what is dialled, after Config.Endpoints
	host string   // of name; whose token is used
	path string   // of name, without leading slash and .git
}

// parseRemote accepts an https address, or http to a host:port of
// Config.AllowHTTPHosts, and refuses all else with the fix.
func (c *Cloner) parseRemote(raw string) (*remote, error) {
	refuse := func(why, fix string) error { return &RepoError{Repo: redact(raw), Why: why, Fix: fix} }
	if https, ok := sshToHTTPS(raw); ok {
		return nil, refuse("ssh and git addresses are not used", "give "+https)
	}
	if strings.Contains(raw, "::") && !strings.Contains(raw, "://[") {
		return nil, refuse("remote helpers are never run", "give an https address")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, refuse("not an address of a repository", "give an https address or an absolute folder")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, refuse("scheme "+u.Scheme+" is refused", "give an https address or an absolute folder")
	case u.User != nil:
		return nil, refuse("it carries a user name or password", "leave them out and configure a token for "+u.Hostname())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, refuse("it has a query or fragment", "give the repository's own address")
	}
	u.Host = strings.ToLower(u.Host)
	if u.Scheme == "https" {
		u.Host = strings.TrimSuffix(u.Host, ":443")
	}
	p := strings.Trim(path.Clean("/"+u.Path), "/")
	p = strings.TrimSuffix(strings.TrimSuffix(p, ".git"), "/")
	if why := unsafePath(p); why != "" {
		return nil, refuse(why, "give the repository's own address")
	}
	r := &remote{name: u.Scheme + "://" + u.Host + "/" + p, host: u.Host, path: p}
	r.url = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(path.Clean("/"+u.Path), "/")}
	if base, ok := c.cfg.Endpoints[u.Host]; ok {
		b, err := url.Parse(base)
		if err != nil || b.Host == "" {
			return nil, refuse("the endpoint configured for "+u.Host+" is not an address", "correct "+base)
		}
		r.url.Scheme, r.url.Host, r.url.Path = b.Scheme, b.Host, strings.TrimSuffix(b.Path, "/")+r.url.Path
		return r, nil
	}
	if why := c.refusedURL(r.url); why != "" {
		return nil, refuse(why, "give an https address on the default port, or configure the host as one of yours")
	}
	return r, nil
}

// refusedURL is the policy for every request, redirects included.
func (c *Cloner) refusedURL(u *url.URL) string {
	switch {
	case c.exempt[hostPort(u)]:
		return ""
	case u.Scheme != "https":
		return "scheme " + u.Scheme + " is refused"
	case u.Port() != "" && u.Port() != "443":
		return "port " + u.Port() + " is refused"
	case !strings.Contains(u.Hostname(), ".") && !strings.Contains(u.Hostname(), ":"):
		return "host " + u.Hostname() + " is not a public name"
	}
	return ""
}

// hostPort is the host and port that a request to u dials.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return strings.ToLower(u.Host)
	}
	if u.Scheme == "http" {
		return strings.ToLower(u.Hostname()) + ":80"
	}
	return strings.ToLower(u.Hostname()) + ":443"
}

// sshToHTTPS maps user@host:path, ssh:// and git:// to https. Public hosts
// serve the same repository under all of them.
func sshToHTTPS(raw string) (string, bool) {
	for _, scheme := range []string{"ssh://", "git+ssh://", "git://"} {
		if rest, ok := strings.CutPrefix(raw, scheme); ok {
			host, p, ok := strings.Cut(rest, "/")
			_, after, found := strings.Cut(host, "@")
			if found {
				host = after
			}
			host, _, _ = strings.Cut(host, ":")
			return "https://" + host + "/" + p, ok && host != ""
		}
	}
	if strings.Contains(raw, "://") || strings.Contains(raw, "::") {
		return "", false
	}
	user, rest, ok := strings.Cut(raw, "@")
	if !ok || user == "" || strings.ContainsAny(user, "/:") {
		return "", false
	}
	host, p, ok := strings.Cut(rest, ":")
	if !ok || host == "" || p == "" || strings.Contains(host, "/") {
		return "", false
	}
	return "https://" + host + "/" + strings.TrimPrefix(p, "/"), true
}

// submoduleURL resolves the url of a .gitmodules entry against the repository
// that holds it: an https address, or a reason to refuse it. Addresses of ssh
// and git, and of plain http, are taken to https.
func submoduleURL(parent, raw string) (abs, refused string) {
	switch {
	case raw == "":
		return "", "submodule has no url"
	case strings.HasPrefix(raw, "./") || strings.HasPrefix(raw, "../"):
		return relativeURL(parent, raw)
	}
	if https, ok := sshToHTTPS(raw); ok {
		return https, ""
	}
	switch u, err := url.Parse(raw); {
	case strings.Contains(raw, "::") && !strings.Contains(raw, "://["):
		return "", "submodule url names a remote helper"
	case err != nil:
		return "", "submodule url cannot be read"
	case u.Host == "" && (u.Scheme == "https" || u.Scheme == "http"):
		return "", "submodule url has no host"
	case u.Scheme == "https":
		return raw, ""
	case u.Scheme == "http" && sameOrigin(parent, u):
		return raw, ""
	case u.Scheme == "http":
		u.Scheme = "https"
		return u.String(), ""
	case u.Scheme == "":
		return "", "submodule url is a path of the author's machine"
	default:
		return "", "submodule url has scheme " + u.Scheme
	}
}

// relativeURL resolves ./x and ../x against a parent address or folder.
func relativeURL(parent, raw string) (abs, refused string) {
	if filepath.IsAbs(parent) {
		return filepath.Join(parent, filepath.FromSlash(raw)), ""
	}
	u, err := url.Parse(parent)
	if err != nil {
		return "", "submodule url cannot be resolved"
	}
	p := path.Join("/", u.Path, raw)
	depth := strings.Count(strings.Trim(u.Path, "/"), "/") + 1
	if strings.Count(raw, "..") > depth || p == "/" {
		return "", "submodule url leaves its host"
	}
	u.Path = p
	return u.String(), ""
}

func sameOrigin(parent string, u *url.URL) bool {
	p, err := url.Parse(parent)
	return err == nil && p.Scheme == u.Scheme && strings.EqualFold(p.Host, u.Host)
}

// redact removes user information from an address before it is shown.
func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		u.User = url.User("…")
		return u.String()
	}
	return raw
}

package target

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

var (
	schemeRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)
	hostRE   = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$`)

	// arxivHosts keep the paths of arxiv.org; subdomains of arxiv.org do too.
	arxivHosts = set("arxiv.org autoarxiv.org ar5iv.org xxx.lanl.gov xxx.itp.ac.cn")
	hubHosts   = set("huggingface.co hf.co hf-mirror.com")
	doiHosts   = set("doi.org dx.doi.org")
	// paperHosts are known without a scheme; their pages are about arXiv papers.
	paperHosts = set("alphaxiv.org arxiv-vanity.com semanticscholar.org scirate.com emergentmind.com catalyzex.com openreview.net")
)

// parseURL reads a URL with a scheme. The scheme http is read as https.
func parseURL(s string) (Target, error) {
	if len(s) >= 5 && strings.EqualFold(s[:5], "hf://") {
		return parseHubURI(s[5:])
	}
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, refuse("it is not a well-formed URL")
	}
	pip := false
	switch u.Scheme {
	case "https", "http":
	case "git+https", "git+http":
		pip = true
	case "ssh", "git+ssh":
		if u.User == nil || u.User.String() != "git" {
			return Target{}, refuseFix("write the https:// address of the repository", "only git@host is accepted over ssh")
		}
		pip = u.Scheme == "git+ssh"
		u.User, u.Host = nil, strings.TrimSuffix(u.Host, ":22")
	case "git", "git+git":
		return Target{}, refuseFix("write the https:// address of the repository", "the git:// protocol is neither encrypted nor authenticated")
	default:
		return Target{}, refuse("the scheme %s: is not accepted", u.Scheme)
	}
	if u.Opaque != "" || u.Host == "" {
		return Target{}, refuseFix("write https://host/path", "the URL has no host")
	}
	host, err := checkHost(u)
	if err != nil {
		return Target{}, err
	}
	if pip || strings.HasPrefix(u.Scheme, "ssh") {
		return parseGitURL(host, u, pip)
	}
	segs, err := segments(u.EscapedPath())
	if err != nil {
		return Target{}, err
	}
	return route(host, segs, u)
}

func route(host string, segs []string, u *url.URL) (Target, error) {
	q := u.Query()
	switch {
	case arxivHosts[host] || strings.HasSuffix(host, ".arxiv.org"):
		return arxivSite(segs, q)
	case doiHosts[host]:
		return parseDOI(strings.Join(segs, "/"))
	case hubHosts[host]:
		return parseHubPath(segs)
	case host == "openreview.net":
		return parseOpenReview(segs, q)
	case forge(host) != nil:
		return forge(host)(host, segs)
	case len(segs) > 0 && strings.HasSuffix(segs[len(segs)-1], ".git"):
		return plainGit(host, segs, "", "")
	}
	return mirrorSite(host, segs, q)
}

// checkHost returns the host name in lower case without "www." and refuses
// everything that is not a DNS name on the standard port: credentials, IP
// addresses in any spelling, single labels, punycode.
func checkHost(u *url.URL) (string, error) {
	if u.User != nil {
		return "", refuseFix("remove everything before the @", "the URL carries a user name or password")
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if len(host) > 253 || !hostRE.MatchString(host) {
		return "", refuse("%s is not a public host name", Quote(u.Hostname()))
	}
	if strings.HasPrefix(host, "xn--") || strings.Contains(host, ".xn--") {
		return "", refuse("the internationalised host name %s may look like another", host)
	}
	if p := u.Port(); strings.HasSuffix(u.Host, ":") || p != "" && !(p == "443" && strings.HasSuffix(u.Scheme, "https")) && !(p == "80" && strings.HasSuffix(u.Scheme, "http")) {
		return "", refuse("only the standard port is accepted")
	}
	return strings.TrimPrefix(host, "www."), nil
}

// segments splits an escaped path and decodes each part once. Empty parts are
// dropped; "." and "..", and empty parts made by an encoded slash, are refused.
func segments(escaped string) ([]string, error) {
	var segs []string
	for _, raw := range strings.Split(escaped, "/") {
		if raw == "" {
			continue
		}
		s, err := url.PathUnescape(raw)
		if err != nil || !utf8.ValidString(s) || strings.ContainsFunc(s, hidden) || strings.Contains(s, `\`) {
			return nil, refuse("the path encodes a character that no identifier has")
		}
		for _, part := range strings.Split(s, "/") {
			if part == "" || part == "." || part == ".." {
				return nil, refuse("the path has a %q segment", part)
			}
		}
		segs = append(segs, s)
	}
	return segs, nil
}

// looksLikeHost decides whether a string without scheme begins with a host.
// A known host always does. Any other name with a dot could be the
// organisation of a hub model, so it needs more path than a model has.
func looksLikeHost(s string) bool {
	end := strings.IndexAny(s, "/?#")
	if end < 0 {
		end = len(s)
	}
	host, _, _ := strings.Cut(strings.ToLower(s[:end]), ":")
	host = strings.TrimPrefix(strings.TrimSuffix(host, "."), "www.")
	switch {
	case !hostRE.MatchString(host):
		return false
	case arxivHosts[host], hubHosts[host], doiHosts[host], paperHosts[host],
		strings.HasSuffix(host, ".arxiv.org"), forge(host) != nil:
		return true
	}
	return strings.Count(strings.Trim(s, "/"), "/") >= 2 || strings.Contains(s, "?") || strings.HasSuffix(s, ".git")
}

var openReviewRE = regexp.MustCompile(`^[A-Za-z0-9_-]{5,64}$`)

func parseOpenReview(segs []string, q url.Values) (Target, error) {
	const fix = "write https://openreview.net/forum?id=ID"
	page := strings.Join(segs, "/")
	switch page {
	case "forum", "pdf", "attachment", "references/pdf", "revisions", "notes/edits/attachment":
	default:
		return Target{}, refuseFix(fix, "the OpenReview page %s is not about one paper", Quote("/"+page))
	}
	id := q.Get("id")
	if !openReviewRE.MatchString(id) {
		return Target{}, refuseFix(fix, "%s is not an OpenReview id", Quote(id))
	}
	return Target{Kind: OpenReview, ID: id, URL: "https://openreview.net/forum?id=" + id}, nil
}

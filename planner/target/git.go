package target

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	scpRE     = regexp.MustCompile(`^git@([A-Za-z0-9.-]+):([^:@?#]+)$`)
	ownerRE   = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?$`)
	repoRE    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	gitSegRE  = regexp.MustCompile(`^~?[A-Za-z0-9._+-]{1,100}$`)
	shortSHA  = regexp.MustCompile(`^[0-9a-f]{7,40}$`)
	badRefRE  = regexp.MustCompile(`[^!-~]|[~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$`)
	pagesRE   = regexp.MustCompile(`\.(?:github|gitlab)\.io$`)
	githubNot = set("about apps collections contact customer-stories enterprise events explore features issues join login " +
		"marketplace notifications orgs pricing pulls search security sessions settings site sponsors stars topics trending users")
)

const gitFix = "write https://github.com/owner/repo, …/tree/REF or …/tree/REF/folder"

// forge returns the reader of a known code host's paths, or nil.
func forge(host string) func(host string, segs []string) (Target, error) {
	switch {
	case host == "github.com" || host == "gitee.com":
		return parseGitHub
	case host == "raw.githubusercontent.com":
		return parseRawGitHub
	case pagesRE.MatchString(host):
		return func(host string, _ []string) (Target, error) {
			return Target{}, refuseFix(gitFix, "%s is a project page, not a repository", host)
		}
	case host == "gitlab.com" || strings.HasPrefix(host, "gitlab."):
		return parseGitLab
	case host == "bitbucket.org":
		return parseBitbucket
	case host == "codeberg.org" || host == "gitea.com":
		return parseGitea
	case host == "git.sr.ht":
		return parseSourceHut
	case strings.HasPrefix(host, "git."):
		return parseGitHost
	}
	return nil
}

// CloneURL returns the https URL of a git target's repository, without branch
// and folder, the absolute path of a local one, and "" for other kinds.
func CloneURL(t Target) string {
	switch t.Kind {
	case Git:
		return "https://" + t.ID
	case Local:
		return t.ID
	}
	return ""
}

// cutSCP splits git@host:owner/repo.
func cutSCP(s string) (host, path string, ok bool) {
	m := scpRE.FindStringSubmatch(s)
	if m == nil {
		return "", "", false
	}
	return m[1], strings.TrimLeft(m[2], "/"), true
}

// parseGitURL reads ssh:// and pip's git+https://host/path[@ref][#subdirectory=folder].
func parseGitURL(host string, u *url.URL, pip bool) (Target, error) {
	escaped, ref := u.EscapedPath(), ""
	if pip {
		before, after, ok := strings.Cut(escaped, "@")
		if escaped = before; ok {
			var err error
			if ref, err = url.PathUnescape(after); err != nil {
				return Target{}, refuse("the reference after @ is badly encoded")
			}
			if err := checkRef(ref); err != nil {
				return Target{}, err
			}
		}
	}
	segs, err := segments(escaped)
	if err != nil {
		return Target{}, err
	}
	sub := ""
	if pip {
		q, err := url.ParseQuery(u.EscapedFragment())
		if err != nil {
			return Target{}, refuse("the fragment is badly encoded")
		}
		parts, err := segments((&url.URL{Path: q.Get("subdirectory")}).EscapedPath())
		if err != nil {
			return Target{}, err
		}
		sub = strings.Join(parts, "/")
	}
	f := forge(host)
	if f == nil {
		return plainGit(host, segs, ref, sub)
	}
	t, err := f(host, segs)
	if err != nil {
		return Target{}, err
	}
	if t.Ref != "" && (ref != "" || sub != "") {
		return Target{}, refuseFix(gitFix, "the URL names two references")
	}
	if ref == "" && sub == "" {
		return t, nil
	}
	host, _, _ = strings.Cut(t.ID, "/")
	return gitTarget(t.ID, host, ref, sub)
}

func parseGitHub(host string, segs []string) (Target, error) {
	if len(segs) < 2 || githubNot[strings.ToLower(segs[0])] {
		return Target{}, refuseFix(gitFix, "the page of %s is not about one repository", host)
	}
	id, err := repoID(host, segs[:2])
	if err != nil {
		return Target{}, err
	}
	if len(segs) == 2 {
		return gitTarget(id, host, "", "")
	}
	return gitRoute(id, host, segs[2], segs[3:])
}

func parseRawGitHub(_ string, segs []string) (Target, error) {
	if len(segs) < 3 {
		return Target{}, refuseFix(gitFix, "the address names no file of a repository")
	}
	id, err := repoID("github.com", segs[:2])
	if err != nil {
		return Target{}, err
	}
	return gitRoute(id, "github.com", "raw", segs[2:])
}

// parseGitLab reads group[/subgroup…]/project[/-/route/…]; older pages lack
// the "-".
func parseGitLab(host string, segs []string) (Target, error) {
	end := len(segs)
	for i, s := range segs {
		if s == "-" || i >= 2 && (s == "tree" || s == "blob" || s == "raw" || s == "commit") {
			end = i
			break
		}
	}
	if end < 2 {
		return Target{}, refuseFix(gitFix, "the page of %s is not about one repository", host)
	}
	id, err := repoID(host, segs[:end])
	if err != nil {
		return Target{}, err
	}
	rest := segs[end:]
	if len(rest) > 0 && rest[0] == "-" {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return gitTarget(id, host, "", "")
	}
	return gitRoute(id, host, rest[0], rest[1:])
}

func parseBitbucket(host string, segs []string) (Target, error) {
	if len(segs) < 2 {
		return Target{}, refuseFix(gitFix, "the page of %s is not about one repository", host)
	}
	id, err := repoID(host, segs[:2])
	switch {
	case err != nil:
		return Target{}, err
	case len(segs) == 2 || len(segs) == 3 && segs[2] == "src":
		return gitTarget(id, host, "", "")
	case segs[2] == "src" || segs[2] == "branch":
		return gitRoute(id, host, "tree", segs[3:])
	case segs[2] == "commits":
		return gitRoute(id, host, "commit", segs[3:])
	}
	return gitRoute(id, host, segs[2], nil)
}

func parseGitea(host string, segs []string) (Target, error) {
	if len(segs) < 2 {
		return Target{}, refuseFix(gitFix, "the page of %s is not about one repository", host)
	}
	id, err := repoID(host, segs[:2])
	switch {
	case err != nil:
		return Target{}, err
	case len(segs) == 2:
		return gitTarget(id, host, "", "")
	case (segs[2] == "src" || segs[2] == "raw") && len(segs) > 4 && (segs[3] == "branch" || segs[3] == "tag" || segs[3] == "commit"):
		return gitRoute(id, host, "tree", segs[4:])
	}
	return gitRoute(id, host, segs[2], segs[3:])
}

// parseGitHost reads the pages of a host called git.…: either a path that ends
// in .git, or the pages of a Gitea or Forgejo server.
func parseGitHost(host string, segs []string) (Target, error) {
	if len(segs) > 0 && strings.HasSuffix(segs[len(segs)-1], ".git") {
		return plainGit(host, segs, "", "")
	}
	return parseGitea(host, segs)
}

func parseSourceHut(host string, segs []string) (Target, error) {
	if len(segs) < 2 || !strings.HasPrefix(segs[0], "~") {
		return Target{}, refuseFix("write https://git.sr.ht/~user/repo", "the page of %s is not about one repository", host)
	}
	if len(segs) > 4 && segs[2] == "tree" && segs[4] == "item" {
		segs = append(segs[:4:4], segs[5:]...)
	}
	if len(segs) > 2 && segs[2] != "tree" {
		return Target{}, refuseFix("write https://git.sr.ht/~user/repo", "the page /%s of %s names no reference", segs[2], host)
	}
	t, err := plainGit(host, segs[:2], "", "")
	if err != nil || len(segs) < 4 {
		return t, err
	}
	return gitRoute(t.ID, host, "tree", segs[3:])
}

// gitRoute reads what follows a repository. A branch with a slash in its name
// cannot be told from a folder without asking the host: the first segment
// counts as the reference unless its slashes are written %2F, or refs/heads/
// or refs/tags/ stands before.
func gitRoute(id, host, verb string, rest []string) (Target, error) {
	switch verb {
	case "tree", "blob", "raw", "blame":
		if len(rest) >= 3 && rest[0] == "refs" && (rest[1] == "heads" || rest[1] == "tags") {
			rest = rest[2:]
		}
	case "commit":
		if len(rest) != 1 || !shortSHA.MatchString(rest[0]) {
			return Target{}, refuseFix(gitFix, "no commit follows /commit")
		}
	case "releases":
		if len(rest) != 2 || rest[0] != "tag" {
			return Target{}, refuseFix(gitFix, "the page /releases names no tag")
		}
		rest = rest[1:]
	default:
		return Target{}, refuseFix(gitFix, "the page /%s of a repository names no reference", verb)
	}
	if len(rest) == 0 {
		return Target{}, refuseFix(gitFix, "no reference follows /%s", verb)
	}
	return gitTarget(id, host, rest[0], strings.Join(rest[1:], "/"))
}

// repoID joins host, owners and repository without the suffix ".git".
func repoID(host string, segs []string) (string, error) {
	last := len(segs) - 1
	repo := strings.TrimSuffix(segs[last], ".git")
	for _, owner := range segs[:last] {
		if !ownerRE.MatchString(owner) {
			return "", refuseFix(gitFix, "%s is no account of %s", Quote(owner), host)
		}
	}
	if !repoRE.MatchString(repo) || repo == "." || repo == ".." || strings.HasSuffix(repo, ".git") {
		return "", refuseFix(gitFix, "%s is no repository of %s", Quote(segs[last]), host)
	}
	return host + "/" + strings.Join(append(segs[:last:last], repo), "/"), nil
}

// plainGit reads a repository on a host of its own; its path is kept as it is,
// since such servers may need the suffix ".git".
func plainGit(host string, segs []string, ref, sub string) (Target, error) {
	if len(segs) == 0 {
		return Target{}, refuseFix(gitFix, "the address names no repository")
	}
	for _, s := range segs {
		if !gitSegRE.MatchString(s) {
			return Target{}, refuseFix(gitFix, "%s cannot stand in the path of a repository", Quote(s))
		}
	}
	return gitTarget(host+"/"+strings.Join(segs, "/"), host, ref, sub)
}

// gitTarget builds the canonical URL: the page of the code host where it has a
// shape that reads back unambiguously, pip's git+https form elsewhere.
func gitTarget(id, host, ref, path string) (Target, error) {
	if ref == "" && path != "" {
		ref = "HEAD"
	}
	t := Target{Kind: Git, ID: id, Ref: ref, Path: path, URL: "https://" + id}
	if ref == "" {
		if forge(host) == nil && !strings.HasSuffix(id, ".git") {
			t.URL = "git+https://" + id
		}
		return t, nil
	}
	if err := checkRef(ref); err != nil {
		return Target{}, err
	}
	switch {
	case host == "github.com" || host == "gitee.com":
		t.URL += "/tree/" + url.PathEscape(ref) + escapePath(path)
	case host == "gitlab.com" || strings.HasPrefix(host, "gitlab."):
		t.URL += "/-/tree/" + url.PathEscape(ref) + escapePath(path)
	default:
		t.URL = "git+https://" + id + "@" + url.PathEscape(ref)
		if path != "" {
			t.URL += "#subdirectory=" + url.QueryEscape(path)
		}
	}
	return t, nil
}

// checkRef holds the rules of git-check-ref-format(1), for ASCII names.
func checkRef(ref string) error {
	if ref == "" || len(ref) > 200 || badRefRE.MatchString(ref) {
		return refuse("%s is not a branch, tag or commit", Quote(ref))
	}
	return nil
}

package cli

import (
	"net/netip"
	"net/url"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/fetch/git"
)

// gitHosts are the sites whose repositories may be asked for elsewhere.
var gitHosts = map[fetch.Site]string{
	fetch.GitHub: "github.com", fetch.GitLab: "gitlab.com", fetch.Codeberg: "codeberg.org", fetch.Bitbucket: "bitbucket.org",
}

// endpoints are the places that the configuration puts in a site's stead, with
// their limits. The limits of the table are manners towards public sites; a
// server on this machine is the user's own and has no gap between requests.
func (a *app) endpoints() (map[fetch.Site]string, map[fetch.Site]fetch.Limit) {
	at, limits := map[fetch.Site]string{}, map[fetch.Site]fetch.Limit{}
	for name, v := range a.cfg.Group("endpoints") {
		if v.Source == "default" {
			continue
		}
		at[fetch.Site(name)] = v.Value
		if onLoopback(v.Value) {
			limits[fetch.Site(name)] = fetch.Limit{Conns: 4}
		}
	}
	return at, limits
}

func onLoopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// gitEndpoints are the bases to clone from instead of the hosts themselves.
func gitEndpoints(at map[fetch.Site]string) map[string]string {
	out := map[string]string{}
	for site, host := range gitHosts {
		if base := at[site]; base != "" && base != "https://"+host {
			out[host] = base
		}
	}
	return out
}

func (a *app) gitLimits() git.Limits {
	return git.Limits{
		TransferBytes: a.cfg.Int("git.transfer_bytes"), Files: int(a.cfg.Int("git.files")), TotalBytes: a.cfg.Int("git.total_bytes"),
		FileBytes: a.cfg.Int("git.file_bytes"), MemoryBytes: a.cfg.Int("git.memory_bytes"),
		Time: a.cfg.Duration("git.time"), Idle: a.cfg.Duration("git.idle"),
	}
}

// gitToken is the token for a git host, by the conventions of its own tools.
func (a *app) gitToken(host string) string {
	switch host {
	case "github.com":
		return firstOf(a.env["GITHUB_TOKEN"], a.env["GH_TOKEN"])
	case "gitlab.com":
		return a.env["GITLAB_TOKEN"]
	}
	return ""
}

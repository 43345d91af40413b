// Package pip is what installing Python packages has in common wherever it
// happens: which requirements are allowed, which indexes are asked, and in
// which words an installer says why it failed.
package pip

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Requirements are those of a plan, sorted by who installs them.
type Requirements struct {
	Args  []string // for pip or uv: PEP 508 lines, "-r" FILE and "-e" PATH in the plan's order
	Conda string   // the conda environment file below the checkout, empty without one
}

// Parse reads a plan's requirements. Any option but -r, -e and -f is refused,
// since it could point the installer elsewhere; so is a path that leaves the
// checkout. why is the refusal, for people.
func Parse(reqs []spec.Requirement) (out Requirements, why string) {
	for _, r := range reqs {
		s := strings.TrimSpace(r.Spec)
		flag, rest, _ := strings.Cut(s, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case (flag == "-r" || flag == "-e" || flag == "-f") && rest != "":
			base, _, _ := strings.Cut(rest, "[")
			if strings.HasPrefix(rest, "-") || (!filepath.IsLocal(base) && base != ".") {
				return Requirements{}, fmt.Sprintf("the requirement %q leaves the checkout", s)
			}
			if flag == "-f" {
				out.Conda = rest
				continue
			}
			out.Args = append(out.Args, flag, rest)
		case s == "" || strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\n\r"):
			return Requirements{}, fmt.Sprintf("the requirement %q is an option that is not allowed", s)
		default:
			out.Args = append(out.Args, s)
		}
	}
	return out, ""
}

// DefaultIndex is the public package index.
func DefaultIndex() *url.URL { return &url.URL{Scheme: "https", Host: "pypi.org", Path: "/simple"} }

// Indexes reads a list of package indexes, the default one when it is empty.
// Credentials are taken out of the URLs: packages run code of their own while
// they are built, and untrusted code is never given a secret. Each index that
// is changed or left out is a deviation.
func Indexes(list []string) (out []*url.URL, devs []spec.Deviation) {
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
			devs = append(devs, spec.Deviation{What: "package index", Declared: "a URL that cannot be used", Used: "none", Reason: "it is no http or https URL"})
			continue
		}
		if u.User != nil {
			u.User = nil
			devs = append(devs, spec.Deviation{What: "package index", Declared: u.Host + " with credentials", Used: u.Host + " without",
				Reason: "packages run code while they are installed, and untrusted code is never given a secret"})
		}
		out = append(out, u)
	}
	if len(out) == 0 {
		out = []*url.URL{DefaultIndex()}
	}
	return out, devs
}

// Hosts are the host:port pairs that installing from a package index reaches:
// the index, and the host of its files where that is another one.
func Hosts(index *url.URL) []string {
	if index.Hostname() == "" {
		return nil
	}
	port := index.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[index.Scheme]
	}
	hosts := []string{index.Hostname() + ":" + port}
	if index.Hostname() == "pypi.org" {
		hosts = append(hosts, "files.pythonhosted.org:443")
	}
	if index.Hostname() == "download.pytorch.org" {
		hosts = append(hosts, "download-r2.pytorch.org:443")
	}
	return hosts
}

// complaint finds the line in which pip or uv begin to name what went wrong.
var complaint = regexp.MustCompile(`(?i)^\s*(error:|error\b|×|x no solution|╰─▶|because|no matching distribution)`)

// Complaint is what an installer says of its failure, in its own words: the
// line that names the package, with the two that explain it. It is empty when
// the output names none.
func Complaint(lines []string) string {
	i := slices.IndexFunc(lines, complaint.MatchString)
	if i < 0 || lines[i] == "ERROR: Exception:" { // a fault of pip's own ends with its cause
		return ""
	}
	return strings.Join(lines[i:min(len(lines), i+3)], " ")
}

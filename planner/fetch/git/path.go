package git

import (
	"strings"
	"unicode/utf8"
)

const (
	maxName  = 255  // bytes in one path component
	maxPath  = 4096 // bytes in a path
	maxDepth = 128  // components in a path
)

// unsafePath returns why a slash-separated path from a repository must not be
// written, or "".
func unsafePath(p string) string {
	if why := tooLong(p); why != "" {
		return why
	}
	for name := range strings.SplitSeq(p, "/") {
		if why := unsafeName(name); why != "" {
			return why
		}
	}
	return ""
}

// tooLong returns why a path is too long or too deep to be written, or "".
func tooLong(p string) string {
	switch {
	case len(p) > maxPath:
		return "path longer than 4096 bytes"
	case strings.Count(p, "/") >= maxDepth:
		return "path deeper than 128 folders"
	}
	return ""
}

// unsafeName returns why one path component from a repository must not be
// written on any of the file systems a checkout may be copied to, or "".
func unsafeName(name string) string {
	switch {
	case name == "":
		return "empty name"
	case name == "." || name == "..":
		return "name is " + name
	case len(name) > maxName:
		return "name longer than 255 bytes"
	case !utf8.ValidString(name):
		return "name is not UTF-8"
	case strings.ContainsAny(name, "/\\"):
		return "name holds a path separator"
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f {
			return "name holds a control character"
		}
	}
	if isDotGit(name) {
		return "name stands for .git"
	}
	if strings.Contains(name, "::$") {
		return "name addresses an NTFS stream"
	}
	if isDevice(name) {
		return "name of a Windows device"
	}
	return ""
}

// isDotGit reports whether some file system would open .git under this name:
// HFS+ ignores case and certain code points (hfsIgnored), NTFS ignores case,
// trailing dots and spaces and whatever follows a colon, and knows .git by its
// 8.3 name git~1. The rules are those of is_hfs_dotgit and is_ntfs_dotgit in
// git's utf8.c and path.c, with git~N for any N and with leading spaces and
// bare ".." forms refused besides.
func isDotGit(name string) bool {
	plain := strings.Map(func(r rune) rune {
		if hfsIgnored(r) {
			return -1
		}
		return r
	}, name)
	if stem, _, ok := strings.Cut(plain, ":"); ok {
		plain = stem
	}
	plain = strings.ToLower(strings.TrimRight(plain, ". "))
	if plain == "" || plain == ".git" {
		return true // "" was dots and spaces alone: "..", ". ." to NTFS
	}
	digits, ok := strings.CutPrefix(plain, "git~")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// hfsIgnored lists the code points that HFS+ leaves out of comparisons
// (git's utf8.c, next_hfs_char).
func hfsIgnored(r rune) bool {
	return r >= 0x200c && r <= 0x200f || r >= 0x202a && r <= 0x202e ||
		r >= 0x206a && r <= 0x206f || r == 0xfeff
}

// isDevice reports the reserved names of Win32, with any extension.
func isDevice(name string) bool {
	stem, _, _ := strings.Cut(name, ".")
	stem, _, _ = strings.Cut(stem, ":")
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if n, ok := strings.CutPrefix(stem, "COM"); ok {
		return isPortNumber(n)
	}
	n, ok := strings.CutPrefix(stem, "LPT")
	return ok && isPortNumber(n)
}

func isPortNumber(s string) bool {
	switch s {
	case "¹", "²", "³":
		return true
	}
	return len(s) == 1 && s[0] >= '1' && s[0] <= '9'
}

// Package git turns a repository's address and a ref into a read-only folder
// of plain files, within bounds, without running anything of the repository's.
//
// # What it does
//
// [Cloner.Checkout] resolves a ref to one commit, asks the server for that
// commit alone (depth 1, no tags), and writes the regular files of its tree
// into a content-addressed cache. No hook, filter, attribute or LFS smudge is
// ever run; what is not materialised is reported as a fact.
//
//	<CacheDir>/git/<key>/tree       read-only files, without .git; folders stay writable, so that rm -r works
//	<CacheDir>/git/<key>/manifest   mode, size, git blob id and path of every file
//	<CacheDir>/git/<key>/meta.json  commit, date, facts, SHA-256 of manifest
//	<CacheDir>/git/refs/<key>.json  what a ref of a remote pointed to, and when
//	<CacheDir>/git/locks/<key>      flock(2): one writer per key
//	<CacheDir>/git/tmp/<name>       staging; removed by whoever finds its lock free
//
// A checkout becomes visible by one rename. A cached one is hashed before it is
// handed out; a damaged one is fetched again. A full commit id that is cached
// needs no network, nor does a ref that was looked up within [Request.MaxAge].
//
// # What it accepts
//
// https addresses, absolute folders, and http or https to a host:port that the
// user configured. Every other scheme is refused, in .gitmodules too. A folder
// is one of: a git repository (bare, normal, or a linked worktree), whose commit
// objects are read and not its working files; or a plain folder, which stands
// for one commit whose id follows from its content alone.
//
// # Who touches the hostile bytes
//
// The parent speaks HTTP and passes the pack on, still compressed, to a child
// ([Config.Child], [ChildMain]). The child has neither network nor secrets: it
// inflates, hashes and writes under Landlock and resource limits, and dies
// alone when a pack is made to exhaust it. Tokens never leave the parent.
//
// # Symbolic links
//
// Links are never created. One whose target is a regular file of the same tree,
// of at most 16 MiB, is written as a copy of it and listed in
// [Checkout.Copied]; every other link is listed in [Checkout.Skipped].
package git

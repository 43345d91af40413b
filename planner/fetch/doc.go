// Package fetch is the one guarded way from this program to the outside.
//
// # What every request passes
//
//  1. Allow-list. A URL is parsed, its host is looked up in the table of
//     sites, and scheme, host, path and query are rebuilt from what was
//     understood; nothing of the original string reaches the network.
//  2. Mirror. With [Config.Mirror] the answer comes from a folder and nothing
//     is dialled.
//  3. Cache. A fresh answer in [Config.CacheDir] is returned at once: no
//     waiting, no network. Of several processes that want the same URL one
//     fetches and the others read what it stored.
//  4. Limiter. Each site has a minimum gap, a number of connections and a
//     token bucket that hold over all processes that share the cache folder.
//  5. Dial guard. The address that the connection is really made to is
//     checked when it is made, so that neither a hostile name nor a name that
//     changes its address between check and use reaches a private network.
//  6. Caps on time, on decompressed bytes and on the compression ratio, and
//     at most three redirects, each of which starts again at step 1.
//
// A token for the hub is sent to the hub's own host and to nothing else.
//
// # Layout of a mirror
//
//	<mirror>/<host>/<path…>[@<query>]      the body
//	<mirror>/<host>/<path…>[@<query>].meta.json   optional: status, content type, …
//	<mirror>/overlay.json                  optional: see [Overlay]
//
// <host> is the site's canonical host (huggingface.co, arxiv.org,
// export.arxiv.org, …), also where [Config.Endpoints] replaces it. Each path
// segment keeps letters, digits and -_~.!$&'()+,;= and percent-encodes every
// other byte, so a slash inside a segment is %2F, an @ is %40 and a file name
// never holds a raw @ of the URL. A leading dot is %2E: a mirror can be
// committed to git without bringing a .gitattributes to life. <query> is the
// query sorted by key in form encoding (url.Values.Encode).
//
// Where a URL is a prefix of another one, a name would have to be both a file
// and a folder: then the body lies in "<path>@", beside the folder "<path>". A
// path that ends in a slash is "<path>/@". A byte range that was fetched alone
// is "<path>@<query>@bytes=<first>-<last>"; a range is also served from the
// whole file. A name longer than 200 bytes is cut and ends in %~ and a hash;
// its full URL stands in the sidecar. Two URLs that differ only in letter case
// never share a file: the second is written with its capitals
// percent-encoded, and a file system that ignores case is not believed.
//
// # Layout of the cache
//
//	<cache>/http/blobs/ab/<sha256>     bodies, by content
//	<cache>/http/meta/ab/<key>.json    one small document per request
//	<cache>/http/lock/                 one fetch per URL over all processes
//	<cache>/http/tmp/                  what is being written
//	<cache>/limits/                    when each site was last asked
//
// Every file is written beside its place and renamed. A reader checks sizes
// and hashes, and fetches again whatever does not hold.
package fetch

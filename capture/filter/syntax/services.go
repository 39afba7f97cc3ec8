package syntax

// service is a port that people know by name.
type service struct {
	port  uint32
	proto Proto // ProtoAny where several protocols have it
}

// services are the names of IANA's service-names-port-numbers that people use, with
// the protocols that /etc/services of Debian 12 gives them: as for tcpdump, `port
// http` is of TCP alone. A table of our own means the same on every host. Those of
// the last lines stand in no such file.
var services = map[string]service{
	"ftp-data": {20, ProtoTCP}, "ftp": {21, ProtoTCP}, "ssh": {22, ProtoTCP}, "telnet": {23, ProtoTCP}, "smtp": {25, ProtoTCP},
	"whois": {43, ProtoTCP}, "tacacs": {49, ProtoAny}, "domain": {53, ProtoAny}, "bootps": {67, ProtoUDP}, "bootpc": {68, ProtoUDP},
	"tftp": {69, ProtoUDP}, "http": {80, ProtoTCP}, "kerberos": {88, ProtoAny}, "pop3": {110, ProtoTCP}, "sunrpc": {111, ProtoAny},
	"nntp": {119, ProtoTCP}, "ntp": {123, ProtoUDP}, "netbios-ns": {137, ProtoUDP}, "netbios-dgm": {138, ProtoUDP},
	"netbios-ssn": {139, ProtoTCP}, "imap2": {143, ProtoTCP}, "imap": {143, ProtoTCP}, "snmp": {161, ProtoAny},
	"snmp-trap": {162, ProtoAny}, "snmptrap": {162, ProtoAny}, "bgp": {179, ProtoTCP}, "ldap": {389, ProtoAny},
	"https": {443, ProtoAny}, "microsoft-ds": {445, ProtoTCP}, "submissions": {465, ProtoTCP}, "smtps": {465, ProtoTCP},
	"isakmp": {500, ProtoUDP}, "syslog": {514, ProtoAny}, "dhcpv6-client": {546, ProtoUDP}, "dhcpv6-server": {547, ProtoUDP},
	"rtsp": {554, ProtoAny}, "submission": {587, ProtoTCP}, "ldaps": {636, ProtoAny}, "domain-s": {853, ProtoAny},
	"rsync": {873, ProtoTCP}, "imaps": {993, ProtoTCP}, "pop3s": {995, ProtoTCP}, "socks": {1080, ProtoTCP}, "openvpn": {1194, ProtoAny},
	"l2f": {1701, ProtoUDP}, "radius": {1812, ProtoAny}, "radius-acct": {1813, ProtoAny}, "nfs": {2049, ProtoAny},
	"iscsi-target": {3260, ProtoTCP}, "mysql": {3306, ProtoTCP}, "ms-wbt-server": {3389, ProtoTCP}, "ipsec-nat-t": {4500, ProtoUDP},
	"sip": {5060, ProtoAny}, "sip-tls": {5061, ProtoAny}, "xmpp-client": {5222, ProtoTCP}, "mdns": {5353, ProtoUDP},
	"postgresql": {5432, ProtoTCP}, "x11": {6000, ProtoTCP}, "redis": {6379, ProtoTCP}, "syslog-tls": {6514, ProtoTCP},
	"http-alt": {8080, ProtoTCP}, "git": {9418, ProtoTCP},

	"dns": {53, ProtoAny}, "dot": {853, ProtoTCP}, "rdp": {3389, ProtoAny}, "ssdp": {1900, ProtoUDP}, "stun": {3478, ProtoAny},
	"vxlan": {4789, ProtoUDP}, "vnc": {5900, ProtoTCP}, "llmnr": {5355, ProtoAny}, "geneve": {6081, ProtoUDP}, "mqtt": {1883, ProtoTCP},
}

// asService is the service that the token names.
func (t token) asService() (service, bool) {
	s, ok := services[t.text]
	return s, ok && t.kind == tokWord
}

// protoOf is whose ports the names of two have in common.
func protoOf(a, b service) Proto {
	if a.proto == b.proto {
		return a.proto
	}
	return ProtoAny
}

// narrow gives q the protocol that the name of a port belongs to.
func (p *parser) narrow(q Qual, of Proto, at int) (Qual, *Error) {
	switch {
	case of == ProtoAny || of == q.Proto:
	case q.Proto == ProtoAny:
		q.Proto = of
	case q.Proto == ProtoTCP || q.Proto == ProtoUDP || q.Proto == ProtoSCTP:
		name, kind := map[Proto]string{ProtoTCP: "tcp", ProtoUDP: "udp"}[of], map[Kind]string{KindPort: "port", KindRange: "portrange"}[q.Kind]
		text := p.text[at : at+span(p.text[at:], inWord)]
		return q, p.errorf(at, "%q is of %s", text, name).hint("write `%s %s %s`, or give the number", name, kind, text)
	}
	return q, nil
}

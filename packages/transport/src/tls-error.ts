import { fromSystemError, TransportError } from './transport-error.ts';

/** What OpenSSL and Node call the ways in which TLS fails: what it means, and what to do. */
const MEANINGS: readonly (readonly [pattern: RegExp, what: string, likely: string])[] = [
  [
    /SELF_SIGNED|UNABLE_TO_(?:GET_ISSUER|VERIFY_LEAF)|CERT_UNTRUSTED|CERT_SIGNATURE_FAILURE|INVALID_CA/,
    'shows a certificate of a CA that is not known here',
    'Give both sides certificates of one CA, and its ca-cert.pem',
  ],
  [/CERT_HAS_EXPIRED/, 'shows a certificate that has expired', 'Have it signed anew'],
  [/CERT_NOT_YET_VALID/, 'shows a certificate that is not valid yet', 'Check the clocks'],
  [/CERT_REVOKED/, 'shows a certificate that was revoked', 'Give it a new one'],
  [
    /INVALID_PURPOSE/,
    'shows a certificate that is not for this',
    'A server needs one for serverAuth, a client one for clientAuth',
  ],
  [
    /ALTNAME_INVALID/,
    'shows a certificate of another host name',
    'Set tls-hostname to a name in the certificate, or have it signed with this one',
  ],
  [
    /UNKNOWN_CA/,
    'does not know the CA of the certificate shown here',
    'Give both sides certificates of one CA, and its ca-cert.pem',
  ],
  [
    /ALERT_CERTIFICATE_EXPIRED/,
    'says that the certificate shown here has expired',
    'Have it signed anew',
  ],
  [
    /ALERT_CERTIFICATE_REVOKED/,
    'says that the certificate shown here was revoked',
    'Get a new one',
  ],
  [
    /CERTIFICATE_REQUIRED|PEER_DID_NOT_RETURN|NO_PEER_CERT/,
    'wants a certificate, and none was shown',
    'The client’s folder needs client-cert.pem and client-key.pem, of the CA that the server knows: one of another CA is not even shown',
  ],
  [
    /BAD_CERTIFICATE|ALERT_CERTIFICATE_UNKNOWN|ALERT_ACCESS_DENIED|UNSUPPORTED_CERTIFICATE/,
    'refuses the certificate shown here',
    'Look at the log of the other side: CA, date, name and purpose of the certificate',
  ],
  [
    /UNKNOWN_PSK_IDENTITY|PSK_IDENTITY_NOT_FOUND|CIPHER_OPERATION_FAILED|DECRYPT_ERROR|BAD_RECORD_MAC|DECRYPTION_FAILED/,
    'has another key of that name, or none',
    'Give both sides the same keys.psk, and the client a username that is in it',
  ],
  [
    /NO_SHARED_CIPHER|ALERT_HANDSHAKE_FAILURE|NO_SUITABLE|NO_CIPHERS/,
    'has no cipher in common with this one',
    'Both sides need the same kind of credentials: x509 or psk',
  ],
  [
    /WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE|UNKNOWN_PROTOCOL|RECORD_LAYER/,
    'does not speak TLS',
    'Set tls-creds on both sides, or on neither',
  ],
  [
    /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/,
    'speaks another version of TLS',
    'Who listens here takes TLS 1.2, who connects 1.2 or 1.3',
  ],
];

/** Makes the function that turns errors of TLS and of the system at `place` into transport errors. */
export function describeTlsFor(place: string): (error: unknown) => TransportError {
  return (error) => {
    if (error instanceof TransportError) return error;
    const { code = '', message } = error as NodeJS.ErrnoException;
    const meaning = MEANINGS.find(([pattern]) => pattern.test(code));
    if (meaning !== undefined) {
      return tlsError(`The other side of ${place} ${meaning[1]}`, meaning[2], code, error);
    }
    if (/^ERR_(?:SSL|TLS)|^CERT_/.test(code)) {
      return tlsError(
        `TLS failed on ${place}`,
        'Look at the log of the other side',
        message,
        error,
      );
    }
    return fromSystemError(error, place, 'CONNECTION_LOST');
  };
}

/** Says that the other side closed the connection where its part of the handshake belongs. */
export function hungUp(place: string, cause?: unknown): TransportError {
  return tlsError(
    `The other side of ${place} closed the connection during the TLS handshake`,
    'It speaks no TLS, or refuses the credentials shown here: its log says which',
    undefined,
    cause,
  );
}

/** Makes the error of a TLS connection that cannot be. */
export function tlsError(
  what: string,
  likely: string,
  found?: string,
  cause?: unknown,
): TransportError {
  return new TransportError('TLS_FAILED', what, {
    ...(found === undefined ? {} : { found }),
    likely,
    ...(cause === undefined ? {} : { cause }),
  });
}

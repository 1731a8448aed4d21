import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, type ReactNode, useEffect, useState } from 'react';
import { Link, Navigate, useNavigate, useSearchParams } from 'react-router';
import {
  arriveFromOutside,
  beginSecondFactor,
  changePassword,
  confirmSecondFactor,
  logIn,
  logOut,
  type Me,
  RefusedError,
  readOutsideLabel,
  removeSecondFactor,
  useMe,
} from './account.ts';
import { usePageTitle } from './page.ts';

const MIN_PASSWORD_CHARS = 12;

/** Why a login elsewhere came to nothing, by the code in the address. */
const refusals: Readonly<Record<string, string>> = {
  OIDC_REFUSED: 'The login was not confirmed. Begin again.',
  OIDC_NO_ROLE: 'Nobody has given you a role in this network. Ask its operator.',
  OIDC_UNAVAILABLE: 'The server that you log in at does not answer. Try again in a minute.',
};

/** Elsewhere, or name and password, then the code where the account has a second factor. */
export function LoginPage() {
  usePageTitle('Log in');
  const me = useMe();
  const queryClient = useQueryClient();
  const [isCodeNeeded, setIsCodeNeeded] = useState(false);
  const login = useMutation({
    mutationFn: (form: FormData) =>
      logIn(entry(form, 'name'), entry(form, 'password'), entry(form, 'code') || undefined),
    onSuccess: () => queryClient.invalidateQueries(),
    onError: (error) => {
      if (error instanceof RefusedError && error.code === 'CODE_NEEDED') setIsCodeNeeded(true);
    },
  });
  const [query] = useSearchParams();
  const isBack = query.get('from') === 'outside';
  const { mutate: arrive } = useMutation({
    mutationFn: arriveFromOutside,
    onSuccess: () => queryClient.invalidateQueries(),
  });
  useEffect(() => {
    if (isBack) arrive();
  }, [isBack, arrive]);
  const methods = useQuery({ queryKey: ['login-methods'], queryFn: readOutsideLabel });
  const refusal = query.get('refused');
  if (me.data) return <Navigate to="/account" replace />;
  return (
    <div className="page account">
      <h1>Log in</h1>
      {refusal !== null && <p role="alert">{refusals[refusal] ?? refusals.OIDC_REFUSED}</p>}
      {typeof methods.data === 'string' && (
        <p>
          <a className="button" href="/api/v1/login/oidc">
            Log in with {methods.data}
          </a>
        </p>
      )}
      <Form onSubmit={login.mutate} isBusy={login.isPending} submitWords="Log in" error={login.error}>
        <Field label="Name" name="name" autoComplete="username" />
        <Field label="Password" name="password" type="password" autoComplete="current-password" />
        {isCodeNeeded && <Field label="Code, or a recovery code" name="code" autoComplete="one-time-code" />}
      </Form>
    </div>
  );
}

/** Who is logged in, and what people change about themselves. */
export function AccountPage() {
  usePageTitle('Account');
  const me = useMe();
  if (me.isPending) return <p role="status">Loading the account</p>;
  if (me.isError) return <p role="alert">The network does not answer. Try again in a moment.</p>;
  if (me.data === null) return <Navigate to="/login" replace />;
  return <OwnAccount me={me.data} />;
}

function OwnAccount({ me }: { readonly me: Me }) {
  const queryClient = useQueryClient();
  const navigate = useNavigate();
  const leave = useMutation({
    mutationFn: logOut,
    onSuccess: () => {
      queryClient.clear();
      navigate('/');
    },
  });
  return (
    <div className="page account">
      <h1>{me.account}</h1>
      <p className="muted">
        You are logged in as <strong>{me.account}</strong>, {me.role}.
      </p>
      {me.hasOneTimePassword && (
        <p role="alert">Your password was good for one login. Choose one of your own to go on.</p>
      )}
      <PasswordSection />
      {!me.hasOneTimePassword && <SecondFactorSection isOn={me.hasSecondFactor} />}
      <button type="button" className="button" disabled={leave.isPending} onClick={() => leave.mutate()}>
        Log out
      </button>
    </div>
  );
}

function PasswordSection() {
  const queryClient = useQueryClient();
  const navigate = useNavigate();
  const change = useMutation({
    mutationFn: (form: FormData) => changePassword(entry(form, 'password'), entry(form, 'newPassword')),
    onSuccess: () => {
      queryClient.clear();
      navigate('/login');
    },
  });
  return (
    <section>
      <h2>Password</h2>
      <Form
        onSubmit={change.mutate}
        isBusy={change.isPending}
        submitWords="Change it, and log in again"
        error={change.error}
      >
        <Field label="Present password" name="password" type="password" autoComplete="current-password" />
        <Field
          label={`New password, at least ${MIN_PASSWORD_CHARS} characters`}
          name="newPassword"
          type="password"
          autoComplete="new-password"
          minLength={MIN_PASSWORD_CHARS}
        />
      </Form>
    </section>
  );
}

function SecondFactorSection({ isOn }: { readonly isOn: boolean }) {
  const queryClient = useQueryClient();
  const refresh = () => queryClient.invalidateQueries({ queryKey: ['me'] });
  const begin = useMutation({ mutationFn: (form: FormData) => beginSecondFactor(entry(form, 'password')) });
  const confirm = useMutation({
    mutationFn: (form: FormData) => confirmSecondFactor(entry(form, 'code')),
    onSuccess: refresh,
  });
  const remove = useMutation({
    mutationFn: (form: FormData) => removeSecondFactor(entry(form, 'password')),
    onSuccess: () => {
      begin.reset();
      confirm.reset();
      return refresh();
    },
  });
  const password = <Field label="Password" name="password" type="password" autoComplete="current-password" />;
  return (
    <section>
      <h2>Second factor</h2>
      {confirm.data !== undefined && (
        <div role="status">
          <p>
            It is on. Keep these recovery codes; each is good for one login, and they are shown this once.
          </p>
          <pre>{confirm.data.join('\n')}</pre>
        </div>
      )}
      {isOn && (
        <Form
          onSubmit={remove.mutate}
          isBusy={remove.isPending}
          submitWords="Turn it off"
          error={remove.error}
        >
          {password}
        </Form>
      )}
      {!isOn && begin.data === undefined && (
        <Form onSubmit={begin.mutate} isBusy={begin.isPending} submitWords="Set it up" error={begin.error}>
          {password}
        </Form>
      )}
      {!isOn && begin.data !== undefined && (
        <>
          <p>
            Enter this secret in an authenticator app, or <a href={begin.data.uri}>open it in one</a>, then
            type the code that it shows.
          </p>
          <pre>{begin.data.secret}</pre>
          <Form
            onSubmit={confirm.mutate}
            isBusy={confirm.isPending}
            submitWords="Turn it on"
            error={confirm.error}
          >
            <Field label="Code" name="code" autoComplete="one-time-code" />
          </Form>
        </>
      )}
    </section>
  );
}

/** For the foot of every page. */
export function AccountLink() {
  const me = useMe();
  return me.data ? <Link to="/account">{me.data.account}</Link> : <Link to="/login">Log in</Link>;
}

interface FormProps {
  readonly onSubmit: (form: FormData) => void;
  readonly isBusy: boolean;
  readonly submitWords: string;
  readonly error: Error | null;
  readonly children: ReactNode;
}

function Form({ onSubmit, isBusy, submitWords, error, children }: FormProps) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    onSubmit(new FormData(event.currentTarget));
  };
  return (
    <form className="account-form" onSubmit={submit}>
      {children}
      {error !== null && (
        <p role="alert">
          {error instanceof RefusedError
            ? error.message
            : 'The network does not answer. Try again in a moment.'}
        </p>
      )}
      <button type="submit" className="button button-primary" disabled={isBusy}>
        {submitWords}
      </button>
    </form>
  );
}

interface FieldProps {
  readonly label: string;
  readonly name: string;
  readonly type?: 'text' | 'password';
  readonly autoComplete: string;
  readonly minLength?: number;
}

function Field({ label, type = 'text', ...input }: FieldProps) {
  return (
    <label className="account-field">
      <span>{label}</span>
      <input type={type} required maxLength={128} autoCapitalize="none" spellCheck={false} {...input} />
    </label>
  );
}

function entry(form: FormData, name: string): string {
  const value = form.get(name);
  return typeof value === 'string' ? value : '';
}
